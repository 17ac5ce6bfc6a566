// What people want of the node: sharing and MIG, by files or by the Node's labels.

#include <fmt/format.h>

#include <iterator>

#include "agent/config_key.h"
#include "base/text.h"
#include "node_model.h"
#include "places.h"

namespace gpuslice::dst {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr const char* kLabels[] = {"off",   "small",   "one",  "big",
                                   "first", "toomany", "typo", "nonsense"};
constexpr const char* kKeys[] = {"a", "b", "default"};

constexpr std::string_view kBadTexts[] = {
    "version: v2\n",
    "version: v1\nsharing:\n  timeSlice: {}\n",
    ("version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      "
     "repilcas: 4\n"),
    "sharing: [\n",
    ("version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - {name: nvidia.com/gpu, "
     "replicas: "
     "900000}\n"),
    "apiVersion: v1\nkind: ConfigMap\ndata: {}\n",
};

std::string key_file(const std::string& key) { return fmt::format("{}/{}", kConfigFolder, key); }

std::string sharing(uint64_t replicas, const std::string& more = "") {
  return fmt::format(
      "version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - name: nvidia.com/gpu\n      "
      "replicas: {}\n{}",
      replicas, more);
}

std::string good_text(Random& random) {
  constexpr const char* kStrategies[] = {"none", "mixed", "mixed", "single"};
  std::string text;
  switch (random.below(5)) {
    case 0:
      text = "version: v1\n";
      break;
    case 1:
      text = sharing(2 + random.below(12));
      break;
    case 2:
      text = sharing(2 + random.below(6), "      devices: [0]\n");
      break;
    case 3:
      text = sharing(2 + random.below(6), "      rename: nvidia.com/gpu-slice\n");
      break;
    default:
      text = sharing(2 + random.below(6), "    renameByDefault: true\n");
      break;
  }
  return text + fmt::format("flags: {{migStrategy: {}}}\n", kStrategies[random.below(4)]);
}

}  // namespace

void NodeModel::wish_changed() {
  ++wishes_;
  wished_at_ = now();
  withdrawals_.begin();
  kept_back_.wish_is_over();
}

void NodeModel::first_wishes() {
  if (with_api_) {
    for (const char* key : kKeys) good_texts_[key_file(key)] = good_text(random_);
    if (random_.chance(2, 3)) choose_key(kKeys[random_.below(std::size(kKeys))]);
  } else {
    good_texts_[kConfig] = sharing(4);
  }
  for (const auto& [path, text] : good_texts_) put(path, text);
  good_mig_ = hardware_.mig_config(0);
  put(kMigConfig, good_mig_);
}

// --- sharing
// --------------------------------------------------------------------------------------------------------

std::string NodeModel::key_path() const {
  const std::string key = api_.label(std::string(agent::kConfigLabel));
  if (!key.empty()) return key_file(key);
  // The key "default", else the only one.
  std::vector<std::string> there;
  for (const char* one : kKeys)
    if (files_.contains(key_file(one))) there.push_back(key_file(one));
  return there.size() == 1 ? there.front() : key_file("default");
}

std::string NodeModel::last_good_text() const {
  const auto found = good_texts_.find(with_api_ ? key_path() : kConfig);
  return found == good_texts_.end() ? "" : found->second;
}

void NodeModel::config_changed() {
  wish_changed();
  key_counts();
  after_for_agent(milliseconds(random_.between(1, 200)), [this] {
    wish_changed();
    if (choice_)
      choice_->look();
    else
      agent_->on_config_changed();
  });
}

void NodeModel::set_config(const std::string& path, const std::string& text) {
  put(path, text);
  config_changed();
}

void NodeModel::edit_config(bool good) {
  std::string path = with_api_ ? key_path() : kConfig;
  // A key that does not count as well.
  if (with_api_ && (random_.chance(1, 3) || !good_texts_.contains(path)))
    path = key_file(kKeys[random_.below(std::size(kKeys))]);
  if (!good) {
    strike(Fault::kBadEdit);
    return set_config(path, std::string(kBadTexts[random_.below(std::size(kBadTexts))]));
  }
  good_texts_[path] = good_text(random_);
  note("edit " + path);
  set_config(path, good_texts_[path]);
}

void NodeModel::choose_key(const std::string& key) {
  note("key " + key);
  wish_changed();
  api_.set_labels({{std::string(agent::kConfigLabel), key}});
  key_counts();
}

// A label that is on its way changes nothing: while the agent sees none, the only key counts.
void NodeModel::key_counts() {
  chosen_.insert(key_path());
  std::string only;
  size_t keys = 0;
  for (const char* one : kKeys)
    if (files_.contains(key_file(one))) {
      only = key_file(one);
      ++keys;
    }
  if (keys == 1) chosen_.insert(only);
}

void NodeModel::unknown_key() {
  if (!with_api_ || !api_.exists()) return;
  strike(Fault::kUnknownKey);
  choose_key("nowhere");
}

void NodeModel::remove_key() {
  const std::string path = key_path();
  if (!with_api_ || !files_.contains(path)) return;
  strike(Fault::kKeyRemoved);
  files_.erase(path);
  config_changed();
  time_.after(milliseconds(random_.between(10, 20'000)),
              [this, path] { set_config(path, good_texts_[path]); });
}

// --- MIG
// ------------------------------------------------------------------------------------------------------------

std::string NodeModel::mig_label() const {
  if (with_api_) return api_.label(std::string(bin::kMigConfigLabel));
  const auto found = files_.find(kMigLabelFile);
  return found == files_.end() ? "" : std::string(trim(found->second));
}

void NodeModel::mig_files_changed() {
  wish_changed();
  after_for_agent(milliseconds(random_.between(1, 200)), [this] {
    wish_changed();
    agent_->on_mig_files_changed();
  });
}

void NodeModel::edit_mig(bool good) {
  if (good) {
    good_mig_ = hardware_.mig_config(++mig_variant_);
  } else {
    strike(Fault::kBadMigEdit);
  }
  put(kMigConfig, good ? good_mig_ : good_mig_ + "  broken: [\n");
  mig_files_changed();
}

std::string NodeModel::some_label() {
  // Taken away: what is there stays.
  if (random_.chance(1, 12)) return "";
  return kLabels[random_.below(std::size(kLabels))];
}

void NodeModel::set_label(const std::string& label) {
  note("label " + label);
  if (with_api_) {
    wish_changed();
    return api_.set_labels({{std::string(bin::kMigConfigLabel), label}});
  }
  if (label.empty())
    files_.erase(kMigLabelFile);
  else
    put(kMigLabelFile, label + "\n");
  mig_files_changed();
}

// --- both
// -----------------------------------------------------------------------------------------------------------

void NodeModel::wish() {
  const uint64_t dice = random_.below(13);
  if (dice < 4) return edit_config(true);
  if (dice < 6 && with_api_)
    return choose_key(random_.chance(1, 5) ? "" : kKeys[random_.below(std::size(kKeys))]);
  if (dice < 12) return set_label(some_label());
  edit_mig(true);
}

void NodeModel::two_wishes() {
  strike(Fault::kTwoWishes);
  const std::string label = some_label();
  if (with_api_ && random_.chance(1, 2)) {
    const std::string key = kKeys[random_.below(std::size(kKeys))];
    note(fmt::format("key {} and label {}", key, label));
    wish_changed();
    api_.set_labels(
        {{std::string(agent::kConfigLabel), key}, {std::string(bin::kMigConfigLabel), label}});
    return key_counts();
  }
  edit_config(true);
  set_label(label);
}

void NodeModel::take_back_a_wish() {
  strike(Fault::kWishTakenBack);
  const Duration later = milliseconds(random_.between(0, 6000));
  if (random_.chance(2, 3)) {
    const std::string old = mig_label();
    set_label(some_label());
    time_.after(later, [this, old] { set_label(old); });
    return;
  }
  const auto last = good_texts_;
  edit_config(true);
  for (const auto& [path, text] : last)
    if (good_texts_[path] != text)
      time_.after(later, [this, path, text] {
        good_texts_[path] = text;
        set_config(path, text);
      });
}

void NodeModel::heal() {
  note("heal");
  healed_ = true;
  hardware_.restore_all();
  settle_illnesses();
  hardware_.fail_changes(0);
  hardware_.die_in_change(-1);
  hardware_.set_away(false);
  driver_hangs_until_ = now();
  dies_in_calls_ = -1;
  apply_ends(true);
  full_.clear();
  next_eviction_.reset();
  budget_until_ = std::min(budget_until_, now() + seconds(15));
  driver_fails_ = refuse_ = pods_unknown_ = 0;
  driver_latency_ = kQuickDriver;
  // What is asked for again may fail once more: it is tried again.
  if (random_.chance(1, 4)) {
    strike(Fault::kPodsUnknown);
    pods_unknown_ = 1;
    time_.after(seconds(20), [this] { pods_unknown_ = 0; });
  }
  api_.heal();
  if (with_api_) {
    calm(seconds(5));  // a Node that was deleted is back
    choose_key(kKeys[random_.below(std::size(kKeys))]);
  }
  for (const auto& [path, text] : good_texts_) put(path, text);
  config_changed();
  put(kMigConfig, good_mig_);
  mig_files_changed();
}

}  // namespace gpuslice::dst
