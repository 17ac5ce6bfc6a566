#include "http/page.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <string_view>

namespace gpuslice::http {
namespace {

constexpr std::string_view kStyle =
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 "
    "1rem;color:#1b1f24;"
    "background:#fff}"
    "h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}"
    "p.facts{margin:.3rem 0;color:#57606a}"
    "table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.28rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}"
    "th{font-weight:600;background:#f6f8fa}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "code{font:13px ui-monospace,monospace}"
    ".bad{color:#b42318;font-weight:600}.good{color:#1a7f37}"
    ".problem{border-left:4px solid #b42318;padding:.5rem "
    ".8rem;background:#fff1f0;white-space:pre-wrap}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th{background:#161b22}"
    "th,td{border-color:#30363d}p.facts{color:#9198a1}.problem{background:#2d1214}.good{color:#"
    "3fb950}"
    ".bad{color:#ff7b72}}";

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> text, Args&&... args) {
  fmt::format_to(std::back_inserter(out), text, std::forward<Args>(args)...);
}

void add_left_out(std::string& out, size_t all, std::string_view what) {
  if (all > kMaxRows) add(out, "<p class=facts>… and {} more {}.</p>\n", all - kMaxRows, what);
}

void add_health(std::string& out, std::string_view health) {
  add(out, "<td class={}>{}</td>", health == "healthy" ? "good" : "bad", html_escape(health));
}

void add_gpus(std::string& out, const PageModel& model) {
  add(out, "<h2>GPUs ({})</h2>\n", model.gpus.size());
  if (model.gpus.empty()) {
    out += "<p>No GPU is seen yet.</p>\n";
    return;
  }
  out += "<table><tr><th>#<th>Name<th>UUID<th>Memory used<th>Activity<th>Health</tr>\n";
  for (size_t i = 0; i < std::min(model.gpus.size(), kMaxRows); ++i) {
    const PageGpu& gpu = model.gpus[i];
    add(out,
        "<tr><td class=n>{}</td><td>{}</td><td><code>{}</code></td><td class=n>{} / {} MiB</td>"
        "<td class=n>{}</td>",
        gpu.index, html_escape(gpu.name), html_escape(gpu.uuid), gpu.memory_used_mib,
        gpu.memory_total_mib,
        gpu.utilisation_percent ? fmt::format("{} %", *gpu.utilisation_percent) : "–");
    add_health(out, gpu.health);
    out += "</tr>\n";
  }
  out += "</table>\n";
  add_left_out(out, model.gpus.size(), "GPUs");
}

void add_slices(std::string& out, const PageModel& model) {
  add(out, "<h2>Slices offered to the kubelet ({})</h2>\n", model.slices.size());
  if (model.slices.empty()) {
    out += "<p>Nothing is offered.</p>\n";
    return;
  }
  out += "<table><tr><th>Resource<th>Device<th>GPU<th>Health<th>Held by</tr>\n";
  for (size_t i = 0; i < std::min(model.slices.size(), kMaxRows); ++i) {
    const PageSlice& slice = model.slices[i];
    add(out, "<tr><td>{}</td><td><code>{}</code></td><td>{}</td>", html_escape(slice.resource),
        html_escape(slice.id), html_escape(slice.gpu));
    add_health(out, slice.health);
    add(out, "<td>{}</td></tr>\n", slice.pod.empty() ? "–" : html_escape(slice.pod));
  }
  out += "</table>\n";
  add_left_out(out, model.slices.size(), "slices");
}

void add_pods(std::string& out, const PageModel& model) {
  add(out, "<h2>Pods that hold slices ({})</h2>\n", model.pods.size());
  if (model.pods.empty()) {
    out += "<p>No pod holds a slice.</p>\n";
    return;
  }
  out += "<table><tr><th>Pod<th>Container<th>Resource<th>Devices</tr>\n";
  for (size_t i = 0; i < std::min(model.pods.size(), kMaxRows); ++i) {
    const PagePod& pod = model.pods[i];
    add(out, "<tr><td>{}</td><td>{}</td><td>{}</td><td>", html_escape(pod.name),
        html_escape(pod.container), html_escape(pod.resource));
    for (size_t id = 0; id < pod.ids.size(); ++id) {
      add(out, "{}<code>{}</code>", id == 0 ? "" : "<br>", html_escape(pod.ids[id]));
    }
    out += "</td></tr>\n";
  }
  out += "</table>\n";
  add_left_out(out, model.pods.size(), "pods");
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string page(const PageModel& model) {
  std::string out;
  add(out,
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
      "<meta http-equiv=refresh content={}>"
      "<meta name=viewport content=\"width=device-width\"><title>gpuslice</title>"
      "<style>{}</style></head><body>\n<h1>gpuslice</h1>\n",
      kRefreshSeconds, kStyle);
  add(out, "<p class=facts>version {} · driver {} · {}</p>\n", html_escape(model.version),
      html_escape(model.driver), html_escape(model.state));
  add(out, "<p class=facts>configuration: {}</p>\n", html_escape(model.configuration));
  if (!model.problem.empty()) {
    add(out, "<p class=problem>{}</p>\n", html_escape(model.problem));
  }
  add_gpus(out, model);
  add_slices(out, model);
  add_pods(out, model);
  out +=
      "<p class=facts><a href=/metrics>metrics</a> · <a href=/healthz>healthz</a> · "
      "<a href=/readyz>readyz</a></p>\n</body></html>\n";
  return out;
}

}  // namespace gpuslice::http
