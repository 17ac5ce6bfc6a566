#include "bin/mig_read.h"

#include <fmt/format.h>

#include <filesystem>
#include <vector>

#include "bin/mig_node.h"
#include "bin/mig_said.h"
#include "cli/mig_text.h"
#include "host/files.h"
#include "mig/checkpoint.h"
#include "mig/files.h"

namespace gpuslice::bin {
namespace {

Status write_output(const std::string& path, const std::string& text) {
  if (!path.empty() && path != "-") return host::write_file_atomically(path, text, false);
  say(text);
  return {};
}

std::string tells_with_mig_on(const mig::GpuState& state) {
  return fmt::format(
      "{}: this driver names its MIG profiles only while MIG is on; switch it on first (gpuslice "
      "smi -mig 1 -i {})",
      state.gpu.text(), state.gpu.index.value);
}

}  // namespace

Result<int> run_mig_export(const MigCommand& command) {
  MigNode node(places_of(command));
  TRY(node.open());
  std::vector<uint32_t> ids;
  TRY_ASSIGN(const std::vector<mig::GpuState> gpus, node.read_all(&ids));
  const mig::FileForm form = command.output == "json" ? mig::FileForm::kJson : mig::FileForm::kYaml;
  if (command.verb == MigCommand::Verb::kCheckpoint) {
    TRY(write_output(command.file, mig::format_checkpoint(gpus)));
    return 0;
  }
  if (gpus.empty())
    return fail(Code::kImpossible, "no GPU of this node has MIG: there is nothing to write");
  if (command.verb == MigCommand::Verb::kGenerate) {
    for (const mig::GpuState& state : gpus)
      if (state.profiles.empty()) return fail(Code::kNeedsReset, "{}", tells_with_mig_on(state));
    for (const mig::GpuState& state : gpus)
      if (!state.profiles_trusted)
        warn(
            fmt::format("warning: {} ({}): with MIG off its driver may misstate its profiles; "
                        "generate again with MIG on if a label turns out wrong",
                        state.gpu.text(), state.gpu.board));
    TRY(write_output(command.file, mig::generate_config(gpus, ids, form)));
    return 0;
  }
  const mig::Exported exported =
      mig::export_config(gpus, command.label, form, command.placements, ids);
  for (const std::string& warning : exported.warnings) warn("warning: " + warning);
  say(exported.text);
  return 0;
}

Result<int> run_mig_list(const MigListCommand& command) {
  MigPlaces places;
  places.root = std::filesystem::absolute(command.root).string();
  MigNode node(places);
  TRY(node.open());
  TRY_ASSIGN(std::vector<mig::GpuState> gpus, node.read_all(nullptr));
  if (command.only) {
    std::erase_if(gpus, [&](const mig::GpuState& state) {
      return *command.only != std::to_string(state.gpu.index.value) &&
             *command.only != state.gpu.uuid && *command.only != state.gpu.bus_id;
    });
    if (gpus.empty())
      return fail(Code::kNotFound, "list {}: -i {}: no GPU of that name with MIG", command.what,
                  *command.only);
  }
  if (gpus.empty()) warn("no GPU of this node has MIG");
  for (const mig::GpuState& state : gpus)
    if (command.what != "instances" && state.profiles.empty()) warn(tells_with_mig_on(state));
  if (command.what == "profiles") say(cli::list_profiles(gpus, command.format));
  if (command.what == "placements") say(cli::list_placements(gpus, command.format));
  if (command.what == "layouts") say(cli::list_layouts(gpus, command.all, command.format));
  if (command.what == "instances") say(cli::list_instances(gpus, command.format));
  return 0;
}

}  // namespace gpuslice::bin
