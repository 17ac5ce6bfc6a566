#include "mig/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace gpuslice::mig {
namespace {

using Json = nlohmann::ordered_json;

// --- a configuration before it is YAML or JSON ---

struct Count {
  uint32_t count = 0;
  std::vector<uint32_t> starts;
};
struct Entry {
  std::vector<uint32_t> filters;  // PCI ids; empty: none
  std::vector<uint32_t> gpus;     // empty: all
  bool enabled = false;
  std::vector<std::pair<std::string, Count>> devices;
};
using Labels = std::vector<std::pair<std::string, std::vector<Entry>>>;

std::string pci_text(uint32_t id) { return fmt::format("0x{:08X}", id); }

std::string list_text(const std::vector<uint32_t>& numbers) {
  std::string text;
  for (const uint32_t n : numbers) text += fmt::format("{}{}", text.empty() ? "" : ", ", n);
  return "[" + text + "]";
}

std::string count_text(const Count& count) {
  return count.starts.empty() ? std::to_string(count.count) : list_text(count.starts);
}

// Quoted unless it is a word that every reader of YAML takes for a text.
std::string yaml_key(const std::string& text) {
  constexpr auto kOtherThanText = std::to_array<std::string_view>(
      {"true", "false", "yes", "no", "on", "off", "y", "n", "null"});
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  const bool plain = !text.empty() && kLetters.contains(text.front()) &&
                     std::all_of(text.begin(), text.end(), [&](char c) {
                       return kLetters.contains(c) || std::string_view("0123456789-._").contains(c);
                     });
  const bool word = std::find(kOtherThanText.begin(), kOtherThanText.end(), to_lower(text)) ==
                    kOtherThanText.end();
  return plain && word ? text : "\"" + json_escape(text) + "\"";
}

std::string yaml(const Labels& labels) {
  std::string out = "version: v1\nmig-configs:\n";
  for (const auto& [name, entries] : labels) {
    out += fmt::format("  {}:\n", yaml_key(name));
    for (const Entry& entry : entries) {
      std::string filters;
      for (const uint32_t id : entry.filters)
        filters += fmt::format("{}\"{}\"", filters.empty() ? "" : ", ", pci_text(id));
      std::string lead = "    - ";
      if (!entry.filters.empty()) {
        out += fmt::format("{}device-filter: {}\n", lead,
                           entry.filters.size() == 1 ? filters : "[" + filters + "]");
        lead = "      ";
      }
      out +=
          fmt::format("{}devices: {}\n", lead, entry.gpus.empty() ? "all" : list_text(entry.gpus));
      out += fmt::format("      mig-enabled: {}\n", entry.enabled);
      if (!entry.enabled) continue;
      out += entry.devices.empty() ? "      mig-devices: {}\n" : "      mig-devices:\n";
      for (const auto& [profile, count] : entry.devices)
        out += fmt::format("        {}: {}\n", yaml_key(profile), count_text(count));
    }
  }
  return out;
}

std::string json(const Labels& labels) {
  Json configs = Json::object();
  for (const auto& [name, entries] : labels) {
    Json list = Json::array();
    for (const Entry& entry : entries) {
      Json one = Json::object();
      if (entry.filters.size() == 1) one["device-filter"] = pci_text(entry.filters[0]);
      if (entry.filters.size() > 1) {
        one["device-filter"] = Json::array();
        for (const uint32_t id : entry.filters) one["device-filter"].push_back(pci_text(id));
      }
      if (entry.gpus.empty())
        one["devices"] = "all";
      else
        one["devices"] = entry.gpus;
      one["mig-enabled"] = entry.enabled;
      if (entry.enabled) {
        one["mig-devices"] = Json::object();
        for (const auto& [profile, count] : entry.devices) {
          if (count.starts.empty())
            one["mig-devices"][profile] = count.count;
          else
            one["mig-devices"][profile] = count.starts;
        }
      }
      list.push_back(std::move(one));
    }
    configs[name] = std::move(list);
  }
  return Json{{"version", "v1"}, {"mig-configs", std::move(configs)}}.dump(2) + "\n";
}

std::string written(const Labels& labels, FileForm form) {
  return form == FileForm::kYaml ? yaml(labels) : json(labels);
}

// What mig-parted calls the compute instances of a GPU instance: "3g.20gb" for the one that fills
// it, "1c.3g.20gb" for a smaller one.
std::string device_name(const GpuState& state, const ports::GpuInstance& gi,
                        const ports::ComputeInstance& ci) {
  const ports::GiProfile* profile = state.profile(gi.profile);
  std::string name = state.profile_name(gi.profile);
  if (profile == nullptr || ci.placement.size == profile->slices) return name;
  return fmt::format("{}c.{}", static_cast<uint32_t>(ci.placement.size), name);
}

Entry entry_of(const GpuState& state, bool placements, std::vector<std::string>& warnings) {
  Entry entry;
  entry.gpus = {state.gpu.index.value};
  entry.enabled = state.mode.current;
  std::map<std::string, Count> devices;
  for (const ports::GpuInstance& gi : state.instances) {
    if (gi.cis.empty())
      warnings.push_back(
          fmt::format("{}: GPU instance {} ({}) has no compute instance, which this "
                      "format cannot say; gpuslice checkpoint can",
                      state.gpu.text(), gi.id.value, state.profile_name(gi.profile)));
    for (const ports::ComputeInstance& ci : gi.cis) {
      const std::string name = device_name(state, gi, ci);
      Count& count = devices[name];
      ++count.count;
      if (placements && name == state.profile_name(gi.profile))
        count.starts.push_back(gi.placement.start);
    }
  }
  for (auto& [name, count] : devices) {
    std::sort(count.starts.begin(), count.starts.end());
    entry.devices.emplace_back(name, std::move(count));
  }
  return entry;
}

bool same_devices(const Entry& a, const Entry& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.count == y.second.count &&
           x.second.starts == y.second.starts;
  };
  return a.enabled == b.enabled && a.devices.size() == b.devices.size() &&
         std::equal(a.devices.begin(), a.devices.end(), b.devices.begin(), same);
}

// --- generate ---

// One kind of board on the node.
struct Kind {
  uint32_t pci_id = 0;
  const GpuState* state = nullptr;
};

std::vector<Kind> kinds_of(const std::vector<GpuState>& gpus, const std::vector<uint32_t>& ids) {
  std::vector<Kind> kinds;
  for (size_t i = 0; i < gpus.size(); ++i) {
    const bool known =
        std::any_of(kinds.begin(), kinds.end(), [&](const Kind& k) { return k.pci_id == ids[i]; });
    if (!known) kinds.push_back({ids[i], &gpus[i]});
  }
  std::sort(kinds.begin(), kinds.end(),
            [](const Kind& a, const Kind& b) { return a.pci_id < b.pci_id; });
  return kinds;
}

const ports::GiProfile* plain_profile(const GpuState& state, uint32_t slices) {
  const ports::GiProfile* found = nullptr;
  for (const ports::GiProfile& p : state.profiles) {
    const auto name = gpu::parse_profile_name(p.name);
    if (p.slices != slices || !name || !name->plus.empty() || !name->minus.empty()) continue;
    if (found == nullptr || p.memory_mib < found->memory_mib) found = &p;
  }
  return found;
}

// Some of each size: what NVIDIA's generator calls balanced.
std::vector<std::pair<std::string, Count>> balanced(const GpuState& state) {
  std::vector<std::pair<uint32_t, uint32_t>> wanted;  // slices, count
  uint32_t most = 0;
  for (const ports::GiProfile& p : state.profiles) most = std::max(most, p.slices);
  if (most == 7) wanted = {{1, 2}, {2, 1}, {3, 1}};
  if (most == 4) wanted = {{1, 2}, {2, 1}};
  std::vector<std::pair<std::string, Count>> out;
  std::vector<plan::WantedGi> gis;
  for (const auto& [slices, count] : wanted) {
    const ports::GiProfile* profile = plain_profile(state, slices);
    if (profile == nullptr) return {};
    out.emplace_back(profile->name, Count{count, {}});
    gis.insert(gis.end(), count, plan::WantedGi{profile->id, std::nullopt, std::nullopt});
  }
  if (!plan::fits(state.offer, gis)) return {};
  return out;
}

std::string label_of(const std::string& profile) {
  std::string label = "all-" + profile;
  std::replace(label.begin(), label.end(), '+', '.');
  return label;
}

// How many of one profile fit on an empty board: what the driver says, unless fewer can be placed.
uint32_t most_of(const GpuState& state, const ports::GiProfile& profile) {
  uint32_t most = profile.most;
  while (most > 0) {
    const std::vector<plan::WantedGi> wanted(most, {profile.id, std::nullopt, std::nullopt});
    if (plan::fits(state.offer, wanted)) break;
    --most;
  }
  return most;
}

}  // namespace

Exported export_config(const std::vector<GpuState>& gpus, const std::string& label, FileForm form,
                       bool placements, const std::vector<uint32_t>& pci_ids) {
  Exported out;
  const bool mixed = kinds_of(gpus, pci_ids).size() > 1;
  std::vector<Entry> merged;
  for (size_t i = 0; i < gpus.size(); ++i) {
    Entry entry = entry_of(gpus[i], placements, out.warnings);
    if (mixed) entry.filters = {pci_ids[i]};
    const auto same = std::find_if(merged.begin(), merged.end(), [&](const Entry& other) {
      return other.filters == entry.filters && same_devices(other, entry);
    });
    if (same == merged.end())
      merged.push_back(std::move(entry));
    else
      same->gpus.push_back(entry.gpus[0]);
  }
  for (Entry& entry : merged) {
    size_t of_kind = 0;
    for (const uint32_t id : pci_ids)
      if (entry.filters.empty() || id == entry.filters[0]) ++of_kind;
    if (entry.gpus.size() == of_kind) entry.gpus.clear();
  }
  if (merged.size() == 1) merged[0].filters.clear();
  out.text = written({{label, std::move(merged)}}, form);
  return out;
}

std::string generate_config(const std::vector<GpuState>& gpus, const std::vector<uint32_t>& pci_ids,
                            FileForm form) {
  const std::vector<Kind> kinds = kinds_of(gpus, pci_ids);
  const bool mixed = kinds.size() > 1;
  Labels labels;
  labels.push_back({"all-disabled", {Entry{}}});
  Entry enabled;
  enabled.enabled = true;
  labels.push_back({"all-enabled", {enabled}});
  std::map<std::string, std::vector<Entry>> by_profile;
  std::vector<Entry> all_balanced;
  for (const Kind& kind : kinds) {
    Entry entry = enabled;
    if (mixed) entry.filters = {kind.pci_id};
    for (const ports::GiProfile& profile : kind.state->profiles) {
      const uint32_t most = most_of(*kind.state, profile);
      if (most == 0) continue;
      entry.devices = {{profile.name, Count{most, {}}}};
      by_profile[label_of(profile.name)].push_back(entry);
    }
    entry.devices = balanced(*kind.state);
    if (!entry.devices.empty()) all_balanced.push_back(entry);
  }
  for (auto& [label, entries] : by_profile) labels.push_back({label, std::move(entries)});
  if (!all_balanced.empty()) labels.push_back({"all-balanced", std::move(all_balanced)});
  return written(labels, form);
}

}  // namespace gpuslice::mig
