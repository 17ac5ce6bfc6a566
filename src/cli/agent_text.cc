#include "cli/agent_text.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

namespace gpuslice::cli {
namespace {

using Json = nlohmann::ordered_json;

// What another version did not write is empty.
const Json& in(const Json& object, const char* key) {
  static const Json kNothing;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() ? *found : kNothing;
}
std::string text(const Json& object, const char* key) {
  const Json& value = in(object, key);
  if (value.is_string()) return value.get<std::string>();
  return value.is_null() ? "" : value.dump();
}
bool is_true(const Json& object, const char* key) {
  const Json& value = in(object, key);
  return value.is_boolean() && value.get<bool>();
}
uint64_t number(const Json& object, const char* key) {
  const Json& value = in(object, key);
  return value.is_number() ? value.get<uint64_t>() : 0;
}
std::string joined(const Json& array) {
  std::string out;
  for (const Json& one : array)
    out += (out.empty() ? "" : ", ") + (one.is_string() ? one.get<std::string>() : one.dump());
  return out;
}
std::string or_dash(const std::string& value) { return value.empty() ? "-" : value; }

std::string line(const char* name, const std::string& value) {
  return fmt::format("{:<15} {}\n", name, value);
}

std::string health(const Json& row) {
  return text(row, "health") == "Healthy" ? "healthy" : "unhealthy: " + text(row, "reason");
}

std::string head(const Json& all) {
  std::string out =
      line("agent",
           fmt::format("gpuslice {}, PID {}, up {:.0f} s", text(all, "version"), text(all, "pid"),
                       in(all, "uptimeSeconds").is_number() ? in(all, "uptimeSeconds").get<double>()
                                                            : 0.0));
  out += line("state", is_true(all, "ready") ? "ready" : "not ready: " + text(all, "whyNotReady"));
  const Json& driver = in(all, "driver");
  const double busy =
      in(driver, "busySeconds").is_number() ? in(driver, "busySeconds").get<double>() : 0.0;
  out +=
      line("driver", text(driver, "version") +
                         (busy >= 1 ? fmt::format(" (has not answered for {:.0f} s)", busy) : ""));
  const Json& config = in(all, "configuration");
  const std::string in_force = text(config, "inForce");
  out += line("configuration",
              number(config, "generation") == 0
                  ? "none in force yet"
                  : fmt::format("{}, generation {}, fingerprint {}", in_force,
                                number(config, "generation"), text(config, "fingerprint")));
  if (const std::string problem = text(config, "problem"); !problem.empty())
    out += line("  problem", problem);
  return out;
}

std::string mig(const Json& all) {
  const Json& mig = in(all, "mig");
  std::string out;
  if (const std::string label = text(mig, "label"); !label.empty())
    out += line("MIG", fmt::format("label {}: {}{}", label, text(mig, "state"),
                                   text(mig, "reason").empty() ? "" : ": " + text(mig, "reason")));
  if (const Json& withheld = in(mig, "withheld"); !withheld.empty())
    out += line("  withheld", joined(withheld));
  for (const Json& one : in(mig, "withdrawals"))
    out += line("  withdrawn", fmt::format("for {}: {}", text(one, "by"), joined(in(one, "gpus"))));
  if (const Json& journals = in(mig, "journals"); !journals.empty())
    out += line("  journals", joined(journals));
  return out;
}

std::string api_server(const Json& all) {
  const Json& kube = in(all, "apiServer");
  if (!is_true(kube, "asked"))
    return line("API server",
                text(kube, "why").empty() ? "not asked" : "not asked: " + text(kube, "why"));
  const std::string trouble = text(kube, "trouble");
  return line("API server", fmt::format("node {}: {}", text(kube, "node"),
                                        trouble.empty() ? "answers" : trouble));
}

Result<Json> parse_status(std::string_view json) {
  Json all = Json::parse(json, nullptr, false);
  if (!all.is_object() || !all.contains("ready"))
    return fail(Code::kCorrupt, "the agent's answer is no status; is it of another version?");
  return all;
}

}  // namespace

Result<OfferedRows> offered_rows(std::string_view json) {
  TRY_ASSIGN(const Json all, parse_status(json));
  std::map<std::string, std::string> uuids;  // by index
  for (const Json& gpu : in(all, "gpus")) uuids[text(gpu, "index")] = text(gpu, "uuid");
  OfferedRows out;
  for (const Json& resource : in(all, "resources")) {
    for (const Json& device : in(resource, "devices")) {
      const std::string index = text(device, "index");
      out.rows.push_back({text(resource, "name"), text(device, "id"),
                          text(device, "health") == "Healthy", text(device, "reason"),
                          uuids[index.substr(0, index.find(':'))], index,
                          !text(device, "heldBy").empty()});
    }
    out.left_out += number(resource, "devicesLeftOut");
  }
  return out;
}

Result<std::string> agent_status_text(std::string_view json) {
  TRY_ASSIGN(const Json all, parse_status(json));
  std::string out = head(all) + mig(all) + api_server(all);
  out += line("labels", fmt::format("{} said to {}", in(in(all, "labels"), "said").size(),
                                    text(in(all, "labels"), "to")));
  out += fmt::format("\n{:<5} {:<32} {:<42} {:<5} {}\n", "GPU", "NAME", "UUID", "MIG", "HEALTH");
  for (const Json& gpu : in(all, "gpus")) {
    const std::string mode = text(in(gpu, "migMode"), "current");
    out += fmt::format("{:<5} {:<32} {:<42} {:<5} {}\n", text(gpu, "index"), text(gpu, "name"),
                       text(gpu, "uuid"),
                       mode.empty()        ? "-"
                       : mode == "enabled" ? "on"
                                           : "off",
                       health(gpu));
  }
  out += fmt::format("\n{:<36} {:>8} {:>9} {:>5}  {}\n", "RESOURCE", "HEALTHY", "UNHEALTHY", "HELD",
                     "KUBELET");
  for (const Json& resource : in(all, "resources"))
    out += fmt::format(
        "{:<36} {:>8} {:>9} {:>5}  {}\n", text(resource, "name"), number(resource, "healthy"),
        number(resource, "unhealthy"), number(resource, "held"),
        is_true(resource, "registered") ? "registered"
                                        : "not registered: " + or_dash(text(resource, "trouble")));
  bool first = true;
  for (const Json& queue : in(all, "queues")) {
    if (number(queue, "refused") == 0) continue;
    if (std::exchange(first, false)) out += "\n";
    out += fmt::format("{}: full {} times (it holds {})\n", text(queue, "name"),
                       number(queue, "refused"), number(queue, "limit"));
  }
  return out;
}

}  // namespace gpuslice::cli
