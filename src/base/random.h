#pragma once

// Seeded random numbers that are the same on every compiler and platform (xoshiro256** by Blackman
// and Vigna, seeded by splitmix64, both public domain algorithms). std::uniform_int_distribution is
// not portable; this is.

#include <array>
#include <cstdint>

namespace gpuslice {

__extension__ using Uint128 = unsigned __int128;

// One step of splitmix64; also a good hash of a 64-bit number.
[[nodiscard]] constexpr uint64_t splitmix64(uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

class Random {
 public:
  constexpr explicit Random(uint64_t seed) {
    for (uint64_t& word : state_) word = splitmix64(seed);
  }

  constexpr uint64_t next() {
    const uint64_t result = rotl(state_[1] * 5, 7) * 9;
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = rotl(state_[3], 45);
    return result;
  }

  // Uniform in [0, bound); bound >= 1. The bias is below 2^-32 for bounds below 2^32.
  constexpr uint64_t below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<Uint128>(next()) * bound) >> 64);
  }

  // Uniform in [low, high], both ends included.
  constexpr int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low) + 1));
  }

  // True `numerator` times out of `denominator`.
  constexpr bool chance(uint64_t numerator, uint64_t denominator) {
    return below(denominator) < numerator;
  }

  // Uniform in [0, 1).
  constexpr double unit() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }

 private:
  static constexpr uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  std::array<uint64_t, 4> state_{};
};

}  // namespace gpuslice
