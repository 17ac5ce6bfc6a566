#include "kube/objects.h"

#include <charconv>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <utility>

namespace gpuslice::kube {
namespace {

// Deeper keys are counted and not named: nothing that matters lies below.
constexpr size_t kNamedDepth = 8;
// "[]" stands for any element of an array.
constexpr std::string_view kElement = "[]";

class Reader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Reader(WatchEvent* event, ApiObject& object) : event_(event), object_(object) {}

  bool null() override { return value(); }
  bool boolean(bool yes) override {
    if (at({"spec", "unschedulable"})) object_.unschedulable = yes;
    return value();
  }
  bool number_integer(number_integer_t number) override { return integer(number); }
  bool number_unsigned(number_unsigned_t number) override {
    return number <= INT64_MAX ? integer(static_cast<int64_t>(number)) : value();
  }
  bool number_float(number_float_t, const string_t&) override { return value(); }
  bool binary(binary_t&) override { return false; }
  bool string(string_t& text) override {
    if (event_ != nullptr && path_.size() == 1 && path_[0] == "type") event_->type = text;
    field(std::move(text));
    return value();
  }

  bool start_object(std::size_t) override { return open(); }
  bool key(string_t& name) override {
    if (depth_ <= kNamedDepth) path_.back() = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override {
    if (depth_ == 0) return false;
    open();
    if (depth_ <= kNamedDepth) path_.back() = kElement;
    return true;
  }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t place, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_at = place;
    return false;
  }

  std::size_t error_at = 0;

 private:
  bool open() {
    if (at({"metadata", "ownerReferences", kElement})) object_.owner_kinds.emplace_back();
    if (at({"details", "causes", kElement})) object_.causes.emplace_back();
    ++depth_;
    if (depth_ <= kNamedDepth) path_.emplace_back();
    return true;
  }
  bool close() {
    if (depth_ <= kNamedDepth) path_.pop_back();
    --depth_;
    return true;
  }
  // A value at the top is no object.
  bool value() { return depth_ > 0; }

  // The path below the object itself (which a watch wraps in "object").
  [[nodiscard]] size_t skipped() const { return event_ != nullptr ? 1 : 0; }
  [[nodiscard]] bool at(std::initializer_list<std::string_view> keys, size_t more = 0) const {
    const size_t skip = skipped();
    if (depth_ > kNamedDepth || path_.size() != skip + keys.size() + more) return false;
    if (skip == 1 && path_[0] != "object") return false;
    size_t i = skip;
    for (const std::string_view key : keys)
      if (path_[i++] != key) return false;
    return true;
  }
  // A value of a map of texts whose name is the last key.
  [[nodiscard]] bool in_map(std::initializer_list<std::string_view> keys) const {
    return at(keys, 1);
  }

  bool integer(int64_t number) {
    if (at({"code"})) object_.code = number;
    if (in_limits()) add_limit(number);
    return value();
  }
  [[nodiscard]] bool in_limits() const {
    return in_map({"spec", "containers", kElement, "resources", "limits"}) ||
           in_map({"spec", "initContainers", kElement, "resources", "limits"});
  }
  void add_limit(int64_t number) {
    const std::string& resource = path_.back();
    if (resource.find('/') == std::string::npos || number <= 0) return;
    int64_t& sum = object_.limits[resource];
    if (__builtin_add_overflow(sum, number, &sum)) sum = INT64_MAX;
  }

  void field(std::string text) {
    if (in_map({"metadata", "labels"})) {
      object_.labels[path_.back()] = std::move(text);
    } else if (in_map({"metadata", "annotations"})) {
      object_.annotations[path_.back()] = std::move(text);
    } else if (in_map({"data"})) {
      object_.data[path_.back()] = std::move(text);
    } else if (in_map({"metadata"})) {
      metadata(std::move(text));
    } else if (at({"kind"})) {
      object_.kind = std::move(text);
    } else if (at({"status", "phase"})) {
      object_.phase = std::move(text);
    } else if (at({"metadata", "ownerReferences", kElement, "kind"})) {
      object_.owner_kinds.back() = std::move(text);
    } else if (at({"reason"})) {
      object_.reason = std::move(text);
    } else if (at({"message"})) {
      object_.message = std::move(text);
    } else if (at({"details", "causes", kElement, "reason"})) {
      object_.causes.back().reason = std::move(text);
    } else if (at({"details", "causes", kElement, "field"})) {
      object_.causes.back().field = std::move(text);
    } else if (in_limits()) {
      // A quantity is written as a text: "2". Extended resources are whole numbers.
      int64_t number = 0;
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (error == std::errc() && end == text.data() + text.size()) add_limit(number);
    }
  }
  void metadata(std::string text) {
    const std::string& key = path_.back();
    if (key == "deletionTimestamp") object_.deleting = true;
    std::string* into = key == "name"              ? &object_.name
                        : key == "namespace"       ? &object_.name_space
                        : key == "uid"             ? &object_.uid
                        : key == "resourceVersion" ? &object_.version
                        : key == "continue"        ? &object_.continue_from
                                                   : nullptr;
    if (into != nullptr) *into = std::move(text);
  }

  WatchEvent* event_;
  ApiObject& object_;
  std::vector<std::string> path_;
  size_t depth_ = 0;
};

Status parse(std::string_view json, Reader& reader) {
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader))
    return fail(Code::kFailed, "the answer is not the JSON of an object (byte {})",
                reader.error_at);
  return {};
}

}  // namespace

Result<ApiObject> read_object(std::string_view json) {
  ApiObject object;
  Reader reader(nullptr, object);
  TRY(parse(json, reader));
  return object;
}

Result<WatchEvent> read_watch_event(std::string_view json) {
  WatchEvent event;
  Reader reader(&event, event.object);
  TRY(parse(json, reader));
  return event;
}

ports::NodeObject node_of(ApiObject object) {
  ports::NodeObject node;
  node.name = std::move(object.name);
  node.uid = std::move(object.uid);
  node.version = std::move(object.version);
  node.labels = std::move(object.labels);
  node.annotations = std::move(object.annotations);
  node.unschedulable = object.unschedulable;
  return node;
}

ports::ConfigMapObject config_map_of(ApiObject object) {
  ports::ConfigMapObject map;
  map.name = {std::move(object.name_space), std::move(object.name)};
  map.uid = std::move(object.uid);
  map.version = std::move(object.version);
  map.data = std::move(object.data);
  return map;
}

ports::PodObject pod_of(ApiObject object) {
  ports::PodObject pod;
  pod.name = {std::move(object.name_space), std::move(object.name)};
  pod.uid = std::move(object.uid);
  pod.labels = std::move(object.labels);
  pod.phase = std::move(object.phase);
  pod.deleting = object.deleting;
  for (const std::string& kind : object.owner_kinds) {
    if (kind == "DaemonSet") pod.daemon = true;
    // A static pod's mirror in the API belongs to the Node itself.
    if (kind == "Node") pod.is_static = true;
  }
  if (object.annotations.contains("kubernetes.io/config.mirror")) pod.is_static = true;
  pod.limits = std::move(object.limits);
  return pod;
}

}  // namespace gpuslice::kube
