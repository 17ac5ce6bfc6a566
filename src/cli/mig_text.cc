#include "cli/mig_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "plan/layouts.h"

namespace gpuslice::cli {
namespace {

using Json = nlohmann::ordered_json;
using mig::GpuPlan;
using mig::GpuState;
using Op = plan::Step::Op;

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string plural(size_t n, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", n, n == 1 ? one : many);
}

uint32_t slices_of(const GpuState& state) {
  uint32_t end = 0;
  for (const plan::GiProfile& p : state.offer.profiles)
    for (const plan::Span span : p.placements) end = std::max(end, span.start + span.size);
  return end;
}

const ports::ComputeInstance* ci_there(const GpuState& state, const plan::Step& step) {
  for (const ports::GpuInstance& gi : state.instances)
    if (gi.id == step.gi)
      for (const ports::ComputeInstance& ci : gi.cis)
        if (ci.id == step.ci) return &ci;
  return nullptr;
}

// The name of a compute instance of `slices` in the profile that lies at the step's GPU instance.
std::string ci_text(const GpuState& state, const plan::Step& step, ProfileId gi_profile) {
  const ports::GiProfile* gi = state.profile(gi_profile);
  const std::string name = state.profile_name(gi_profile);
  return gi == nullptr || step.placement.size == gi->slices
             ? name
             : fmt::format("{}c.{}", step.placement.size, name);
}

// The profile of the GPU instance at `placement`, before or after.
ProfileId profile_at(const GpuPlan& plan, plan::Span placement, bool comes) {
  const mig::Layout& layout = comes ? plan.after : plan.before;
  for (const plan::WantedGi& gi : layout.gis)
    if (gi.placement == placement) return gi.profile;
  return {};
}

std::string at(plan::Span span) { return fmt::format("{}:{}", span.start, span.size); }

// The steps of one GPU in words, in the order in which they are done.
std::vector<std::string> words_of(const GpuDecision& gpu) {
  const GpuPlan& plan = *gpu.decision.plan;
  const GpuState& state = gpu.state;
  std::vector<std::string> out;
  const std::string mode = fmt::format("switch MIG {}{}", gpu.wish.mig ? "on" : "off",
                                       gpu.needs_reset ? ", which resets this GPU" : "");
  if (plan.mode_changes && gpu.wish.mig) out.push_back(mode);
  if (plan.provisional)
    out.emplace_back(
        "this driver tells only with MIG on what fits: then it is planned, and if it "
        "cannot be, MIG goes off again");
  for (const plan::Step& step : plan.steps.steps) {
    switch (step.op) {
      case Op::kDestroyCi:
        out.push_back(fmt::format(
            "destroy compute instance {} of GPU instance {} ({})", step.ci.value, step.gi.value,
            ci_text(state, step, profile_at(plan, step.gi_placement, false))));
        break;
      case Op::kDestroyGi:
        out.push_back(fmt::format("destroy GPU instance {} ({} at {})", step.gi.value,
                                  state.profile_name(step.profile), at(step.placement)));
        break;
      case Op::kCreateGi:
        out.push_back(fmt::format("create GPU instance {} at {}", state.profile_name(step.profile),
                                  at(step.placement)));
        break;
      case Op::kCreateCi:
        out.push_back(fmt::format(
            "create compute instance {} in {}",
            ci_text(state, step, profile_at(plan, step.gi_placement, true)),
            step.new_gi ? fmt::format("the new GPU instance at {}", at(step.gi_placement))
                        : fmt::format("GPU instance {}", step.gi.value)));
        break;
    }
  }
  if (plan.mode_changes && !gpu.wish.mig) out.push_back(mode);
  return out;
}

// One row of the drawing: every memory slice a cell, every instance a box over its cells.
constexpr size_t kLeastCell = 9;
std::string box_name(const GpuState& state, const plan::WantedGi& gi) {
  const std::string name = state.profile_name(gi.profile);
  return gi.cis && gi.cis->size() > 1 ? fmt::format("{}/{}", name, gi.cis->size()) : name;
}
// So wide that every name fits into its box, with brackets, mark and a blank between boxes.
size_t cell_width(const GpuState& state, std::initializer_list<const mig::Layout*> layouts) {
  size_t cell = kLeastCell;
  for (const mig::Layout* layout : layouts)
    for (const plan::WantedGi& gi : layout->gis)
      if (gi.placement)
        cell = std::max(
            cell, (box_name(state, gi).size() + 4 + gi.placement->size - 1) / gi.placement->size);
  return cell;
}
struct Canvas {
  uint32_t slices = 0;
  size_t cell = kLeastCell;
};
std::string row_of(const GpuState& state, const mig::Layout& layout, const mig::Layout& other,
                   char mark, Canvas canvas) {
  if (!layout.mig) return "(MIG off)";
  const auto [slices, cell] = canvas;
  std::string row(slices * cell, ' ');
  for (uint32_t i = 0; i < slices; ++i) row[i * cell + cell / 2] = '.';
  for (const plan::WantedGi& gi : layout.gis) {
    if (!gi.placement || gi.placement->start + gi.placement->size > slices) continue;
    const bool stays = std::find(other.gis.begin(), other.gis.end(), gi) != other.gis.end();
    const size_t width = gi.placement->size * cell - 1;
    std::string box = fmt::format("{}{}", stays ? '=' : mark, box_name(state, gi));
    box.resize(width - 2, ' ');
    row.replace(gi.placement->start * cell, width, "[" + box + "]");
  }
  while (row.ends_with(' ')) row.pop_back();
  return row;
}

std::string draw(const GpuDecision& gpu) {
  const GpuPlan& plan = *gpu.decision.plan;
  const Canvas canvas{slices_of(gpu.state), cell_width(gpu.state, {&plan.before, &plan.after})};
  std::string numbers;
  for (uint32_t i = 0; i < canvas.slices; ++i) numbers += fmt::format("{:^{}}", i, canvas.cell);
  while (numbers.ends_with(' ')) numbers.pop_back();
  return fmt::format("  slice  {}\n  now    {}\n  then   {}\n", numbers,
                     row_of(gpu.state, plan.before, plan.after, '-', canvas),
                     row_of(gpu.state, plan.after, plan.before, '+', canvas));
}

std::string summary(const GpuDecision& gpu) {
  const GpuPlan& plan = *gpu.decision.plan;
  if (plan.nothing_to_do()) return "as wanted";
  if (plan.provisional) return "MIG comes on, then it is planned";
  return fmt::format("{} stay{}, {} go{}, {} come{}", plan.steps.kept.size(),
                     plan.steps.kept.size() == 1 ? "s" : "", plan.steps.gis_destroyed,
                     plan.steps.gis_destroyed == 1 ? "es" : "", plan.steps.gis_created,
                     plan.steps.gis_created == 1 ? "s" : "");
}

std::string title(const GpuState& state) {
  return fmt::format("{} ({})", state.gpu.text(), state.gpu.board);
}

Json placement_json(plan::Span span) { return {{"start", span.start}, {"size", span.size}}; }

Json step_json(const GpuDecision& gpu, const plan::Step& step) {
  constexpr std::array<std::string_view, 4> kOps = {"destroy-ci", "destroy-gi", "create-gi",
                                                    "create-ci"};
  const GpuPlan& plan = *gpu.decision.plan;
  const bool comes = step.op == Op::kCreateCi || step.op == Op::kCreateGi;
  const bool inner = step.op == Op::kDestroyCi || step.op == Op::kCreateCi;
  const ProfileId gi_profile = inner ? profile_at(plan, step.gi_placement, comes) : step.profile;
  Json out = {{"op", kOps[static_cast<size_t>(step.op)]},
              {"gpu", gpu.state.gpu.index.value},
              {"gpuUuid", gpu.state.gpu.uuid}};
  if (!step.new_gi) out["gi"] = step.gi.value;
  if (step.op == Op::kDestroyCi) out["ci"] = step.ci.value;
  out["profile"] =
      inner ? ci_text(gpu.state, step, gi_profile) : gpu.state.profile_name(step.profile);
  out["profileId"] = step.profile.value;
  out["placement"] = placement_json(step.placement);
  if (inner) out["giPlacement"] = placement_json(step.gi_placement);
  if (const auto* ci = step.op == Op::kDestroyCi ? ci_there(gpu.state, step) : nullptr)
    out["uuid"] = ci->uuid;
  return out;
}

Json holder_json(const mig::Holder& holder) {
  Json out = Json::object();
  if (holder.gi) out["gi"] = holder.gi->value;
  if (holder.ci) out["ci"] = holder.ci->value;
  if (holder.pid != 0) out["pid"] = holder.pid;
  if (!holder.command.empty()) out["command"] = holder.command;
  if (!holder.pod.empty()) {
    out["namespace"] = holder.pod_namespace;
    out["pod"] = holder.pod;
    out["container"] = holder.container;
  }
  if (!holder.device.empty()) out["device"] = holder.device;
  return out;
}

Json holders_json(const std::vector<mig::Holder>& holders) {
  Json list = Json::array();
  for (const mig::Holder& holder : holders) list.push_back(holder_json(holder));
  return list;
}

}  // namespace

std::string plan_text(const std::string& label, const std::vector<GpuDecision>& gpus) {
  std::string out = fmt::format("label {}\n", label);
  for (const GpuDecision& gpu : gpus) {
    if (gpu.decision.refusal) {
      out += fmt::format("\n{}: cannot be\n  {}\n", title(gpu.state),
                         gpu.decision.refusal->error.message);
      continue;
    }
    out += fmt::format("\n{}: {}\n", title(gpu.state), summary(gpu));
    for (const std::string& note : gpu.decision.plan->notes) out += fmt::format("  {}\n", note);
    if (!gpu.decision.plan->provisional) out += draw(gpu);
    size_t number = 0;
    for (const std::string& step : words_of(gpu)) out += fmt::format("  {}. {}\n", ++number, step);
  }
  bool any = false;
  for (const GpuDecision& gpu : gpus) any = any || gpu.decision.plan.has_value();
  if (any) out += "\n= stays   - goes   + comes\n";
  return out;
}

std::string plan_json(const std::string& label, const std::vector<GpuDecision>& gpus,
                      const std::vector<std::string>& warnings, Format format) {
  Json kept = Json::array();
  Json steps = Json::array();
  Json list = Json::array();
  std::string reason;
  bool possible = true;
  bool changes = false;
  for (const GpuDecision& gpu : gpus) {
    const GpuState& state = gpu.state;
    Json one = {{"gpu", state.gpu.index.value}, {"gpuUuid", state.gpu.uuid}};
    changes = changes || gpu.changes();
    if (gpu.decision.refusal) {
      const mig::Refusal& refusal = *gpu.decision.refusal;
      possible = false;
      if (!reason.empty()) reason += "; ";
      reason += refusal.error.message;
      one["possible"] = false;
      one["code"] = code_name(refusal.error.code);
      one["reason"] = refusal.error.message;
      one["nearest"] = refusal.nearest;
      one["holders"] = holders_json(refusal.holders);
      list.push_back(std::move(one));
      continue;
    }
    const GpuPlan& plan = *gpu.decision.plan;
    one["possible"] = true;
    one["changes"] = !plan.nothing_to_do();
    one["provisional"] = plan.provisional;
    one["before"] = mig::layout_text(plan.before, state);
    one["after"] = plan.provisional ? Json() : Json(mig::layout_text(plan.after, state));
    one["notes"] = plan.notes;
    list.push_back(std::move(one));
    const Json mode = {{"op", "set-mode"},
                       {"gpu", state.gpu.index.value},
                       {"gpuUuid", state.gpu.uuid},
                       {"mode", gpu.wish.mig ? "enabled" : "disabled"},
                       {"resetsGpu", gpu.needs_reset}};
    const auto switch_mode = [&] {
      steps.push_back(mode);
      if (gpu.needs_reset)
        steps.push_back(
            {{"op", "reset"}, {"gpu", state.gpu.index.value}, {"gpuUuid", state.gpu.uuid}});
    };
    if (plan.mode_changes && gpu.wish.mig) switch_mode();
    for (const plan::Step& step : plan.steps.steps) steps.push_back(step_json(gpu, step));
    if (plan.mode_changes && !gpu.wish.mig) switch_mode();
    for (const plan::Gi& gi : plan.steps.kept)
      kept.push_back({{"gpu", state.gpu.index.value},
                      {"gpuUuid", state.gpu.uuid},
                      {"gi", gi.id.value},
                      {"profile", state.profile_name(gi.profile)},
                      {"profileId", gi.profile.value},
                      {"placement", placement_json(gi.placement)}});
  }
  Json out = {{"label", label},          {"possible", possible},      {"changes", changes},
              {"kept", std::move(kept)}, {"steps", std::move(steps)}, {"reason", reason},
              {"gpus", std::move(list)}, {"warnings", warnings}};
  return print_json(dumped(out), format);
}

std::string diff_text(const std::vector<GpuDecision>& gpus) {
  std::string out;
  for (const GpuDecision& gpu : gpus) {
    if (!gpu.changes()) continue;
    const mig::Layout now = gpu.state.layout();
    out += fmt::format("{}\n- {}\n", title(gpu.state), mig::layout_text(now, gpu.state));
    if (gpu.decision.refusal)
      out += fmt::format("! {}\n", gpu.decision.refusal->error.message);
    else if (gpu.decision.plan->provisional)
      out += "+ MIG on; this driver tells only then what fits\n";
    else
      out += fmt::format("+ {}\n", mig::layout_text(gpu.decision.plan->after, gpu.state));
  }
  return out;
}

std::string report_text(const std::vector<mig::Report>& reports) {
  std::string out;
  for (const mig::Report& report : reports) {
    const std::string layout = report.layout.empty() ? "" : ": " + report.layout;
    if (report.end == mig::End::kAlready)
      out += fmt::format("{}: as wanted{}\n", report.gpu.text(), layout);
    else if (report.end == mig::End::kDone)
      out += fmt::format("{}: done, {} kept{}\n", report.gpu.text(),
                         plural(report.plan.steps.kept.size(), "instance", "instances"), layout);
    else
      out += fmt::format("{}: {}\n", report.gpu.text(), mig::end_name(report.end));
  }
  return out;
}

std::string report_json(const std::vector<mig::Report>& reports, Format format) {
  Json gpus = Json::array();
  bool good = true;
  for (const mig::Report& report : reports) {
    // What a plan meant counts once it is so.
    const bool done = report.end == mig::End::kDone || report.end == mig::End::kAlready;
    Json one = {{"gpu", report.gpu.index.value},
                {"gpuUuid", report.gpu.uuid},
                {"end", mig::end_name(report.end)},
                {"kept", done ? report.plan.steps.kept.size() : 0},
                {"destroyed", done ? report.plan.steps.gis_destroyed : 0},
                {"created", done ? report.plan.steps.gis_created : 0},
                {"driverCalls", report.calls},
                {"layout", report.layout}};
    if (report.error) {
      good = false;
      one["error"] = {{"code", code_name(report.error->code)},
                      {"message", report.error->message},
                      {"nearest", report.refusal.nearest},
                      {"holders", holders_json(report.refusal.holders)}};
    }
    gpus.push_back(std::move(one));
  }
  return print_json(dumped({{"ok", good}, {"gpus", std::move(gpus)}}), format);
}

std::string list_profiles(const std::vector<GpuState>& gpus, Format format) {
  if (format != Format::kTable) {
    Json out = Json::array();
    for (const GpuState& state : gpus)
      for (const ports::GiProfile& p : state.profiles)
        out.push_back({{"gpu", state.gpu.index.value},
                       {"gpuUuid", state.gpu.uuid},
                       {"profile", p.name},
                       {"profileId", p.id.value},
                       {"most", p.most},
                       {"slices", p.slices},
                       {"memoryMiB", p.memory_mib},
                       {"sm", p.sm},
                       {"ce", p.ce},
                       {"dec", p.dec},
                       {"enc", p.enc},
                       {"jpeg", p.jpeg},
                       {"ofa", p.ofa}});
    return print_json(dumped(out), format);
  }
  std::string out = fmt::format(
      "{:<4} {:<14} {:>3} {:>5} {:>7} {:>10} {:>4} {:>3} {:>4} {:>4} {:>5} {:>4}\n", "GPU",
      "PROFILE", "ID", "MOST", "SLICES", "MEMORY", "SM", "CE", "DEC", "ENC", "JPEG", "OFA");
  for (const GpuState& state : gpus)
    for (const ports::GiProfile& p : state.profiles)
      out += fmt::format(
          "{:<4} {:<14} {:>3} {:>5} {:>7} {:>7}MiB {:>4} {:>3} {:>4} {:>4} {:>5} {:>4}\n",
          state.gpu.index.value, p.name, p.id.value, p.most, p.slices, p.memory_mib, p.sm, p.ce,
          p.dec, p.enc, p.jpeg, p.ofa);
  return out;
}

std::string list_placements(const std::vector<GpuState>& gpus, Format format) {
  if (format != Format::kTable) {
    Json out = Json::array();
    for (const GpuState& state : gpus)
      for (const ports::GiProfile& p : state.profiles) {
        Json places = Json::array();
        for (const gpu::Placement place : p.placements)
          places.push_back(placement_json(mig::span_of(place)));
        out.push_back({{"gpu", state.gpu.index.value},
                       {"profile", p.name},
                       {"profileId", p.id.value},
                       {"placements", std::move(places)}});
      }
    return print_json(dumped(out), format);
  }
  std::string out = fmt::format("{:<4} {:<14} {:>3} {}\n", "GPU", "PROFILE", "ID", "PLACEMENTS");
  for (const GpuState& state : gpus)
    for (const ports::GiProfile& p : state.profiles) {
      std::string starts;
      for (const gpu::Placement place : p.placements)
        starts +=
            fmt::format("{}{}", starts.empty() ? "" : ",", static_cast<uint32_t>(place.start));
      out += fmt::format("{:<4} {:<14} {:>3} {{{}}}:{}\n", state.gpu.index.value, p.name,
                         p.id.value, starts,
                         p.placements.empty() ? 0U : static_cast<uint32_t>(p.placements[0].size));
    }
  return out;
}

std::string list_layouts(const std::vector<GpuState>& gpus, bool all, Format format) {
  Json json = Json::array();
  std::string text;
  for (const GpuState& state : gpus) {
    const auto combinations = plan::combinations(state.offer);
    uint32_t layouts = 0;
    uint32_t maximal = 0;
    Json list = Json::array();
    std::string lines;
    for (const plan::Combination& one : combinations) {
      layouts += one.layouts;
      maximal += one.maximal;
      if (!all && one.maximal == 0) continue;
      std::map<std::string, uint32_t> counts;
      for (const ProfileId id : one.profiles) ++counts[state.profile_name(id)];
      std::string names;
      for (const auto& [name, n] : counts)
        names += fmt::format("{}{} x {}", names.empty() ? "" : " + ", n, name);
      lines += fmt::format("  {:>5}  {:>5}  {}\n", one.layouts, one.maximal, names);
      list.push_back({{"profiles", counts}, {"layouts", one.layouts}, {"maximal", one.maximal}});
    }
    text += fmt::format(
        "{}: {} combinations in {} layouts, {} of which take no more\n{}", title(state),
        combinations.size(), layouts, maximal,
        lines.empty() ? "" : fmt::format("  {:>5}  {:>5}  INSTANCES\n{}", "WAYS", "FULL", lines));
    json.push_back({{"gpu", state.gpu.index.value},
                    {"layouts", layouts},
                    {"combinations", combinations.size()},
                    {"maximal", maximal},
                    {"list", std::move(list)}});
  }
  return format == Format::kTable ? text : print_json(dumped(json), format);
}

std::string list_instances(const std::vector<GpuState>& gpus, Format format) {
  Json json = Json::array();
  std::string text = fmt::format("{:<4} {:<14} {:>3} {:>3} {:>3} {:>9} {}\n", "GPU", "PROFILE",
                                 "ID", "GI", "CI", "PLACEMENT", "UUID");
  for (const GpuState& state : gpus)
    for (const ports::GpuInstance& gi : state.instances) {
      const ports::GiProfile* profile = state.profile(gi.profile);
      const plan::Span span = mig::span_of(gi.placement);
      const auto row = [&](const std::string& name, const ports::ComputeInstance* ci) {
        text += fmt::format("{:<4} {:<14} {:>3} {:>3} {:>3} {:>9} {}\n", state.gpu.index.value,
                            name, gi.profile.value, gi.id.value,
                            ci ? std::to_string(ci->id.value) : "-", at(span), ci ? ci->uuid : "-");
        json.push_back({{"gpu", state.gpu.index.value},
                        {"gpuUuid", state.gpu.uuid},
                        {"profile", name},
                        {"profileId", gi.profile.value},
                        {"gi", gi.id.value},
                        {"ci", ci ? Json(ci->id.value) : Json()},
                        {"placement", placement_json(span)},
                        {"uuid", ci ? Json(ci->uuid) : Json()}});
      };
      if (gi.cis.empty()) row(state.profile_name(gi.profile), nullptr);
      for (const ports::ComputeInstance& ci : gi.cis) {
        const bool whole = profile == nullptr || ci.placement.size == profile->slices;
        row(whole ? state.profile_name(gi.profile)
                  : fmt::format("{}c.{}", static_cast<uint32_t>(ci.placement.size),
                                state.profile_name(gi.profile)),
            &ci);
      }
    }
  return format == Format::kTable ? text : print_json(dumped(json), format);
}

}  // namespace gpuslice::cli
