#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "cli/smi_mig.h"

namespace gpuslice::cli {
namespace {

using What = SmiMigRequest::What;

struct Option {
  std::string_view word;
  std::string_view other;  // the long form
  What what = What::kHelp;
};
// What `mig` does; exactly one of them stands on a command line.
constexpr auto kActions = std::to_array<Option>({
    {"-lgip", "--list-gpu-instance-profiles", What::kGiProfiles},
    {"-lgipp", "--list-gpu-instance-possible-placements", What::kGiPlacements},
    {"-lgi", "--list-gpu-instances", What::kInstances},
    {"-lcip", "--list-compute-instance-profiles", What::kCiProfiles},
    {"-lcipp", "--list-compute-instance-possible-placements", What::kCiPlacements},
    {"-lci", "--list-compute-instances", What::kCis},
    {"-cgi", "--create-gpu-instance", What::kCreateGi},
    {"-cci", "--create-compute-instance", What::kCreateCi},
    {"-dgi", "--destroy-gpu-instance", What::kDestroyGi},
    {"-dci", "--destroy-compute-instance", What::kDestroyCi},
    {"-h", "--help", What::kHelp},
});
constexpr auto kOthers =
    std::to_array<std::string_view>({"-i", "--id", "-gi", "--gpu-instance-id", "-ci",
                                     "--compute-instance-id", "-C", "--default-compute-instance"});

const Option* action_of(std::string_view name) {
  for (const Option& option : kActions)
    if (name == option.word || name == option.other) return &option;
  return nullptr;
}

bool is_mode(std::string_view name) { return name == "-mig" || name == "--multi-instance-gpu"; }
bool is_reset(std::string_view name) { return name == "-r" || name == "--gpu-reset"; }

// The words of a command line, each with what follows "=" if anything does.
class Words {
 public:
  explicit Words(std::span<const std::string> args) : args_(args) {}
  [[nodiscard]] bool next() {
    if (at_ == args_.size()) return false;
    const std::string& arg = args_[at_++];
    const size_t equals = arg.starts_with('-') ? arg.find('=') : std::string::npos;
    name_ = arg.substr(0, equals);
    inline_.reset();
    if (equals != std::string::npos) inline_ = arg.substr(equals + 1);
    return true;
  }
  [[nodiscard]] const std::string& name() const { return name_; }
  // "-x VALUE" or "-x=VALUE"; nothing where another option or nothing follows.
  [[nodiscard]] std::optional<std::string> value() {
    if (inline_) return inline_;
    if (at_ == args_.size() || args_[at_].starts_with('-')) return std::nullopt;
    return args_[at_++];
  }
  [[nodiscard]] Result<std::string> must(std::string_view what) {
    if (auto found = value(); found && !found->empty()) return *std::move(found);
    return fail(Code::kUsage, "{}: {} is missing", name_, what);
  }

 private:
  std::span<const std::string> args_;
  size_t at_ = 0;
  std::string name_;
  std::optional<std::string> inline_;
};

Status read_gpus(Words& words, SmiMigRequest& request) {
  TRY_ASSIGN(const std::string list, words.must("a GPU"));
  for (const std::string_view part : split(list, ',')) request.gpus.emplace_back(trim(part));
  return {};
}

Status read_ids(Words& words, std::vector<uint32_t>& ids) {
  TRY_ASSIGN(const std::string list, words.must("an id"));
  for (const std::string_view part : split(list, ',')) {
    const auto id = parse_u64(trim(part));
    if (!id || *id > 999)
      return fail(Code::kUsage, "{} {}: {} is not an id", words.name(), json_escape(list),
                  json_escape(trim(part)));
    ids.push_back(static_cast<uint32_t>(*id));
  }
  return {};
}

// "19", "1g.5gb", "MIG 1g.5gb", each with ":START" if wanted.
Status read_profiles(const std::string& list, std::string_view option, SmiMigRequest& request) {
  for (const std::string_view part : split(list, ',')) {
    SmiMigRequest::Profile profile;
    std::string_view text = trim(part);
    if (const size_t colon = text.rfind(':'); colon != std::string_view::npos) {
      const auto start = parse_u64(text.substr(colon + 1));
      if (!start || *start > 255)
        return fail(Code::kUsage,
                    "{} {}: after the colon stands where the instance begins, as {}:4", option,
                    json_escape(list), json_escape(text.substr(0, colon)));
      profile.start = static_cast<uint32_t>(*start);
      text = text.substr(0, colon);
    }
    if (to_lower(text.substr(0, 4)) == "mig ") text = trim(text.substr(4));
    if (text.empty())
      return fail(Code::kUsage, "{} {}: a profile is missing", option, json_escape(list));
    profile.text = text;
    request.profiles.push_back(std::move(profile));
  }
  return {};
}

Status read_action(Words& words, const Option& option, SmiMigRequest& request) {
  request.what = option.what;
  if (option.what == What::kCreateGi) {
    TRY_ASSIGN(const std::string list, words.must("a profile, such as 19 or 1g.5gb,"));
    return read_profiles(list, option.word, request);
  }
  if (option.what == What::kCreateCi)
    if (const auto list = words.value()) return read_profiles(*list, option.word, request);
  return {};
}

Result<SmiMigRequest> parse_mig(std::span<const std::string> args) {
  SmiMigRequest request;
  std::string_view action;
  Words words(args);
  while (words.next()) {
    const std::string& name = words.name();
    if (const Option* option = action_of(name)) {
      if (!action.empty())
        return fail(Code::kUsage, "mig: {} and {} do not go together", action, option->word);
      action = option->word;
      TRY(read_action(words, *option, request));
    } else if (name == "-i" || name == "--id") {
      TRY(read_gpus(words, request));
    } else if (name == "-gi" || name == "--gpu-instance-id") {
      TRY(read_ids(words, request.gis));
    } else if (name == "-ci" || name == "--compute-instance-id") {
      TRY(read_ids(words, request.cis));
    } else if (name == "-C" || name == "--default-compute-instance") {
      request.with_ci = true;
    } else {
      std::vector<std::string_view> known(kOthers.begin(), kOthers.end());
      for (const Option& one : kActions) known.insert(known.end(), {one.word, one.other});
      const auto near = nearest(name, known);
      return fail(
          Code::kUsage, "mig: unknown option {}{}", json_escape(name),
          near ? fmt::format("; did you mean {}?", *near) : "; nvidia-smi mig -h lists them");
    }
  }
  if (request.with_ci && request.what != What::kCreateGi)
    return fail(Code::kUsage, "mig: -C goes with -cgi: it makes a compute instance in each");
  return request;
}

Result<SmiMigRequest> parse_mode_or_reset(std::span<const std::string> args) {
  SmiMigRequest request;
  Words words(args);
  while (words.next()) {
    const std::string& name = words.name();
    if (is_mode(name)) {
      request.what = What::kMode;
      TRY_ASSIGN(const std::string value, words.must("0 or 1"));
      const std::string word = to_lower(value);
      request.on = word == "1" || word == "enabled";
      if (!request.on && word != "0" && word != "disabled")
        return fail(Code::kUsage, "{} {}: it is 0 (disabled) or 1 (enabled)", name,
                    json_escape(value));
    } else if (is_reset(name)) {
      request.what = What::kReset;
    } else if (name == "-i" || name == "--id") {
      TRY(read_gpus(words, request));
    } else {
      return fail(Code::kUsage, "smi: {} does not go with {}; -i ID[,ID…] does", json_escape(name),
                  request.what == What::kReset ? "--gpu-reset" : "-mig");
    }
  }
  return request;
}

}  // namespace

bool is_smi_mig(std::span<const std::string> args) {
  if (!args.empty() && args.front() == "mig") return true;
  return std::any_of(args.begin(), args.end(), [](const std::string& arg) {
    const std::string_view name = std::string_view(arg).substr(0, arg.find('='));
    return is_mode(name) || is_reset(name);
  });
}

Result<SmiMigRequest> parse_smi_mig(std::span<const std::string> args) {
  if (!args.empty() && args.front() == "mig") return parse_mig(args.subspan(1));
  return parse_mode_or_reset(args);
}

bool smi_chosen(const std::vector<std::string>& wanted, const ports::Gpu& gpu) {
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& one) {
           return one == std::to_string(gpu.index.value) || one == gpu.uuid ||
                  to_lower(one) == to_lower(gpu.bus_id);
         });
}

// A GPU that does not answer tells no more than its index.
bool smi_chosen(const std::vector<std::string>& wanted, const SilentGpu& gpu) {
  return wanted.empty() ||
         std::find(wanted.begin(), wanted.end(), std::to_string(gpu.index)) != wanted.end();
}

}  // namespace gpuslice::cli
