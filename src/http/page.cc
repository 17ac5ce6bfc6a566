#include "http/page.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <string_view>

namespace gpuslice::http {
namespace {

// A table becomes a list of cards where there is no room for its columns: each cell then says what
// it is (data-l), and the row of headings goes.
constexpr std::string_view kStyle = R"css(
:root{--text:#1b1f24;--soft:#57606a;--line:#d8dee4;--back:#fff;--raised:#f6f8fa;--good:#1a7f37;--bad:#b42318;--bad-back:#fff1f0;--held:#0969da}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9198a1;--line:#30363d;--back:#0d1117;--raised:#161b22;--good:#3fb950;--bad:#ff7b72;--bad-back:#2d1214;--held:#4493f8}}
*{box-sizing:border-box}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:76rem;padding:1.2rem;color:var(--text);background:var(--back)}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .5rem}
p{margin:.3rem 0}.facts{color:var(--soft);overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;background:var(--raised);white-space:nowrap}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}
code{font:13px ui-monospace,monospace;white-space:nowrap}
a{color:var(--held)}
meter{width:6rem;height:.8rem;vertical-align:middle;margin-right:.4rem}
.bad{color:var(--bad)}.good{color:var(--good)}p.bad,p.good{font-weight:600}
.problem{border-left:4px solid var(--bad);padding:.5rem .8rem;background:var(--bad-back);white-space:pre-wrap;overflow-wrap:anywhere}
.s{display:inline-flex;gap:3px;vertical-align:middle;margin-right:.4rem}.w{flex-wrap:wrap;width:15rem}
.s i{width:12px;height:12px;border:1px solid var(--held);border-radius:2px}
.s .h{background:var(--held)}.s .x{border-color:var(--bad)}.s .x.h{background:var(--bad)}
@media(max-width:48rem){
table,tbody,tr,td{display:block}tr:first-child{display:none}
tr{border:1px solid var(--line);border-radius:8px;margin:.6rem 0;padding:.2rem 0}
td{display:flex;gap:.8rem;border:0;padding:.2rem .8rem;overflow-wrap:anywhere}td.n{white-space:normal}
code{white-space:normal}meter{width:4rem}.w{width:100%}
td::before{content:attr(data-l);color:var(--soft);flex:0 0 6.5rem}}
)css";

// Slices of a GPU that are drawn one by one; of more, only the numbers stand there.
constexpr size_t kMaxDrawn = 64;
constexpr size_t kOneRow = 16;

template <class... Args>
void add(std::string& out, fmt::format_string<Args...> text, Args&&... args) {
  fmt::format_to(std::back_inserter(out), text, std::forward<Args>(args)...);
}

void add_left_out(std::string& out, size_t all, std::string_view what) {
  if (all > kMaxRows) add(out, "<p class=facts>… and {} more {}.</p>\n", all - kMaxRows, what);
}

void add_health(std::string& out, std::string_view health) {
  add(out, "<td class={} data-l=Health>{}</td>", health == "healthy" ? "good" : "bad",
      html_escape(health));
}

void add_memory(std::string& out, const PageGpu& gpu) {
  out += "<td class=n data-l=Memory><span>";
  if (!gpu.memory_used_mib) return add(out, "– / {} MiB</span></td>", gpu.memory_total_mib);
  if (gpu.memory_total_mib > 0)
    add(out, "<meter max={} value={}></meter>", gpu.memory_total_mib, *gpu.memory_used_mib);
  add(out, "{} / {} MiB</span></td>", *gpu.memory_used_mib, gpu.memory_total_mib);
}

void add_activity(std::string& out, const PageGpu& gpu) {
  out += "<td class=n data-l=Activity><span>";
  if (gpu.utilisation_percent)
    add(out, "<meter max=100 value={0}></meter>{0} %</span></td>", *gpu.utilisation_percent);
  else
    out += "–</span></td>";
}

// What is offered of a GPU, each slice a square: held, free or unhealthy.
struct SlicesOfGpu {
  std::string squares;
  size_t all = 0;
  size_t held = 0;
};
std::string_view square(bool healthy, bool held) {
  if (healthy) return held ? "<i class=h></i>" : "<i></i>";
  return held ? "<i class='x h'></i>" : "<i class=x></i>";
}

std::map<std::string, SlicesOfGpu> slices_by_gpu(const PageModel& model) {
  std::map<std::string, SlicesOfGpu> out;
  for (const PageSlice& slice : model.slices) {
    // "0", "0:1" and "0 (MIG 1g.5gb)" are of GPU 0.
    SlicesOfGpu& of = out[slice.gpu.substr(0, slice.gpu.find_first_of(": "))];
    ++of.all;
    if (!slice.pod.empty()) ++of.held;
    if (of.all <= kMaxDrawn) of.squares += square(slice.health == "healthy", !slice.pod.empty());
  }
  return out;
}

void add_slices_of(std::string& out, const SlicesOfGpu& of) {
  out += "<td class=n data-l=Slices><span>";
  if (of.all > 0 && of.all <= kMaxDrawn)
    add(out, "<span class={}>{}</span>", of.all <= kOneRow ? "s" : "'s w'", of.squares);
  add(out, "{} of {} held</span></td>", of.held, of.all);
}

void add_gpus(std::string& out, const PageModel& model) {
  add(out, "<h2>GPUs ({})</h2>\n", model.gpus.size());
  if (model.gpus.empty()) {
    out += "<p>No GPU is seen yet.</p>\n";
    return;
  }
  std::map<std::string, SlicesOfGpu> slices = slices_by_gpu(model);
  out += "<table><tr><th>GPU<th>Name<th>Slices<th>Memory used<th>Activity<th>Health</tr>\n";
  for (size_t i = 0; i < std::min(model.gpus.size(), kMaxRows); ++i) {
    const PageGpu& gpu = model.gpus[i];
    add(out,
        "<tr><td class=n data-l=GPU>{}</td><td data-l=Name><span>{}<br><code>{}</code></span></td>",
        gpu.index, html_escape(gpu.name), html_escape(gpu.uuid));
    add_slices_of(out, slices[std::to_string(gpu.index)]);
    add_memory(out, gpu);
    add_activity(out, gpu);
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
  out += "<table><tr><th>Resource<th>GPU<th>Health<th>Held by<th>Device</tr>\n";
  for (size_t i = 0; i < std::min(model.slices.size(), kMaxRows); ++i) {
    const PageSlice& slice = model.slices[i];
    add(out, "<tr><td data-l=Resource>{}</td><td data-l=GPU>{}</td>", html_escape(slice.resource),
        html_escape(slice.gpu));
    add_health(out, slice.health);
    add(out, "<td data-l='Held by'>{}</td><td data-l=Device><code>{}</code></td></tr>\n",
        slice.pod.empty() ? "–" : html_escape(slice.pod), html_escape(slice.id));
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
    add(out,
        "<tr><td data-l=Pod>{}</td><td data-l=Container>{}</td><td data-l=Resource>{}</td>"
        "<td data-l=Devices><span>",
        html_escape(pod.name), html_escape(pod.container), html_escape(pod.resource));
    for (size_t id = 0; id < pod.ids.size(); ++id) {
      add(out, "{}<code>{}</code>", id == 0 ? "" : "<br>", html_escape(pod.ids[id]));
    }
    out += "</span></td></tr>\n";
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
  const bool known = model.gpus.empty() ||
                     std::any_of(model.gpus.begin(), model.gpus.end(), [](const PageGpu& gpu) {
                       return gpu.memory_used_mib.has_value();
                     });
  add(out,
      "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
      "<meta http-equiv=refresh content={}>"
      "<meta name=viewport content=\"width=device-width,initial-scale=1\"><title>gpuslice: {}"
      "</title><link rel=icon href=\"data:,\"><style>{}</style></head><body>\n<h1>gpuslice</h1>\n",
      known ? kRefreshSeconds : kRefreshSoonSeconds, html_escape(model.state), kStyle);
  add(out, "<p class={}>{}</p>\n", model.state == "ready" ? "good" : "bad",
      html_escape(model.state));
  add(out, "<p class=facts>version {} · driver {}</p>\n", html_escape(model.version),
      html_escape(model.driver));
  add(out, "<p class=facts>configuration: {}</p>\n", html_escape(model.configuration));
  if (!model.problem.empty()) {
    add(out, "<p class=problem>{}</p>\n", html_escape(model.problem));
  }
  if (!model.mig.empty()) add(out, "<p class=facts>MIG: {}</p>\n", html_escape(model.mig));
  if (!model.mig_problem.empty())
    add(out, "<p class=problem>{}</p>\n", html_escape(model.mig_problem));
  add_gpus(out, model);
  add_pods(out, model);
  add_slices(out, model);
  out +=
      "<p class=facts><a href=/metrics>metrics</a> · <a href=/healthz>healthz</a> · "
      "<a href=/readyz>readyz</a></p>\n</body></html>\n";
  return out;
}

}  // namespace gpuslice::http
