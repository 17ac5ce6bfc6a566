#pragma once

// Ours with one defect of mig-parted each: the smallest change that has it.

#include "tool.h"

namespace gpuslice::mig_test {

// D1: an unknown profile makes an empty list of instances, and the GPU is cleared for it.
class D1Mutant final : public OurTool {
 public:
  std::optional<Error> apply(Node& node, const std::string& config,
                             const std::string& label) override;
};

// D2: GPU instances are seen only through their compute instances.
class D2Mutant final : public OurTool {
 protected:
  mig::Ports ports(Node& node) override;

 private:
  std::unique_ptr<ports::Mig> view_;
};

// D3: instances are created in an order that differs from run to run, wherever the driver likes,
// from an empty GPU each time until one order works.
class D3Mutant final : public OurTool {
 public:
  std::optional<Error> apply(Node& node, const std::string& config,
                             const std::string& label) override;

 private:
  size_t runs_ = 0;
};

// D4: the saved GPUs are this node's in the same order.
class D4Mutant final : public OurTool {
 public:
  std::optional<Error> restore(Node& node, const std::string& checkpoint) override;
};

// D5: an entry whose filter is malformed is for no GPU; a negative count is told without it.
class D5Mutant final : public OurTool {
 public:
  std::optional<Error> apply(Node& node, const std::string& config,
                             const std::string& label) override;
};

// D6: a profile with count zero is part of what is compared, so nothing is ever equal to it.
class D6Mutant final : public OurTool {
 public:
  std::optional<Error> apply(Node& node, const std::string& config,
                             const std::string& label) override;
  std::optional<Error> assert_label(Node& node, const std::string& config,
                                    const std::string& label) override;
};

// D7: a GPU that no entry names differs.
class D7Mutant final : public OurTool {
 public:
  std::optional<Error> assert_label(Node& node, const std::string& config,
                                    const std::string& label) override;
};

// D8: what the driver says of its profiles while MIG is off is believed.
class D8Mutant final : public OurTool {
 protected:
  mig::Ports ports(Node& node) override;

 private:
  std::unique_ptr<ports::Mig> view_;
};

// D9: what became of a change of the mode is not looked at.
class D9Mutant final : public OurTool {
 protected:
  mig::Ports ports(Node& node) override;

 private:
  std::unique_ptr<ports::Mig> view_;
};

// D10: no lock.
class D10Mutant final : public OurTool {
 protected:
  mig::Ports ports(Node& node) override;

 private:
  std::unique_ptr<ports::Locks> locks_;
};

// D11: written for a driver that never fails: all goes first, and there is no way back.
class D11Mutant final : public OurTool {
 public:
  std::optional<Error> apply(Node& node, const std::string& config,
                             const std::string& label) override;
};

}  // namespace gpuslice::mig_test
