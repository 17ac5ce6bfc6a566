#include "gpu/uuid.h"

#include <algorithm>
#include <bit>
#include <span>
#include <string_view>
#include <vector>

namespace gpuslice::gpu {
namespace {

// SHA-1 (FIPS 180-4), for names only: nothing here is a secret.
std::array<uint8_t, 20> sha1(std::vector<uint8_t> text) {
  std::array<uint32_t, 5> h = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  const uint64_t bits = text.size() * 8;
  text.push_back(0x80);
  while (text.size() % 64 != 56) text.push_back(0);
  for (int shift = 56; shift >= 0; shift -= 8) text.push_back(static_cast<uint8_t>(bits >> shift));
  for (size_t block = 0; block < text.size(); block += 64) {
    std::array<uint32_t, 80> w{};
    for (size_t i = 0; i < 16; ++i)
      w[i] = uint32_t{text[block + 4 * i]} << 24 | uint32_t{text[block + 4 * i + 1]} << 16 |
             uint32_t{text[block + 4 * i + 2]} << 8 | uint32_t{text[block + 4 * i + 3]};
    for (size_t i = 16; i < 80; ++i)
      w[i] = std::rotl(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    auto [a, b, c, d, e] = h;
    for (size_t i = 0; i < 80; ++i) {
      const uint32_t f = i < 20   ? (b & c) | (~b & d)
                         : i < 40 ? b ^ c ^ d
                         : i < 60 ? (b & c) | (b & d) | (c & d)
                                  : b ^ c ^ d;
      const uint32_t k = i < 20   ? 0x5a827999
                         : i < 40 ? 0x6ed9eba1
                         : i < 60 ? 0x8f1bbcdc
                                  : 0xca62c1d6;
      const uint32_t next = std::rotl(a, 5) + f + e + k + w[i];
      e = d;
      d = c;
      c = std::rotl(b, 30);
      b = a;
      a = next;
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
    h[4] += e;
  }
  std::array<uint8_t, 20> out{};
  for (size_t i = 0; i < 20; ++i) out[i] = static_cast<uint8_t>(h[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

class Name {
 public:
  Name() {
    constexpr uint8_t kNamespace[] = {0xc8, 0x16, 0xc9, 0xa3, 0x52, 0x24, 0x56, 0xbf,
                                      0x9d, 0x9a, 0xac, 0x7e, 0xa7, 0x03, 0xfb, 0x5b};
    constexpr std::string_view kText = "NVIDIA GPU";
    bytes_.insert(bytes_.end(), std::begin(kNamespace), std::end(kNamespace));
    bytes_.insert(bytes_.end(), kText.begin(), kText.end());
  }
  Name& tag(uint8_t tag) {
    bytes_.push_back(tag);
    return *this;
  }
  Name& text(std::string_view text) {
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    return *this;
  }
  Name& number(uint64_t value, int bytes) {  // little endian
    for (int i = 0; i < bytes; ++i) bytes_.push_back(static_cast<uint8_t>(value >> (8 * i)));
    return *this;
  }
  [[nodiscard]] UuidBytes uuid() const {
    const auto digest = sha1(bytes_);
    UuidBytes out{};
    std::copy_n(digest.begin(), out.size(), out.begin());
    out[6] = static_cast<uint8_t>((out[6] & 0x0f) | 0x50);
    out[8] = static_cast<uint8_t>((out[8] & 0x3f) | 0x80);
    return out;
  }

 private:
  std::vector<uint8_t> bytes_;
};

Name gpu_name(uint16_t chip_id, uint64_t pdi) {
  Name name;
  name.tag(0x02).number(chip_id, 2).tag(0x08).number(pdi, 8);
  return name;
}

}  // namespace

UuidBytes gpu_uuid(uint16_t chip_id, uint64_t pdi) { return gpu_name(chip_id, pdi).uuid(); }

UuidBytes mig_uuid(uint16_t chip_id, uint64_t pdi, uint32_t gi, uint32_t engine) {
  return gpu_name(chip_id, pdi).tag(0x0b).text("SMC").number(gi, 4).number(engine, 4).uuid();
}

std::string uuid_text(const UuidBytes& u) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  out.reserve(36);
  for (size_t i = 0; i < u.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += kHex[u[i] >> 4];
    out += kHex[u[i] & 15];
  }
  return out;
}

}  // namespace gpuslice::gpu
