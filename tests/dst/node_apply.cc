// Another gpuslice on the node: `apply` changes a GPU beside the agent, which withdraws for it what
// goes. Its connection to the agent, and it itself, may end at any moment.

#include <fmt/format.h>

#include <iterator>
#include <utility>

#include "config/mig_parted.h"
#include "mig/label.h"
#include "node_model.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

void NodeModel::as_apply(int dies_in, const std::function<void()>& work) {
  apply_at_work_ = true;  // its calls of ports are no calls of the agent's
  hardware_.in_apply(true, dies_in);
  std::optional<Died> died;
  try {
    work();
  } catch (const Died& how) {
    died = how;
  }
  hardware_.in_apply(false, -1);
  apply_at_work_ = false;
  (void)hardware_.waited();
  if (!died) return;
  strike(died->how);
  apply_->change.reset();  // its lock goes with it, its journal stays
}

void NodeModel::apply_comes(bool dies) {
  if (!agent_ || apply_) return;
  constexpr const char* kWanted[] = {"off", "small", "one", "big"};
  const config::MigPartedFile file =
      config::read_mig_parted(hardware_.mig_config(static_cast<uint32_t>(random_.below(2))));
  const auto label = file.config.labels.find(kWanted[random_.below(std::size(kWanted))]);
  if (label == file.config.labels.end()) return;
  const std::vector<ports::Gpu>& gpus = hardware_.gpus();
  const auto wish = mig::wish_of_label(label->second, label->first, gpus, "f");
  if (!wish || wish->gpus.empty()) return;
  auto one = wish->gpus.begin();
  std::advance(one, static_cast<std::ptrdiff_t>(random_.below(wish->gpus.size())));
  const mig::GpuName name = mig::name_of(gpus[one->first]);

  apply_ = std::make_unique<Apply>();
  apply_->turn = ++applies_;
  apply_->dies = dies;
  apply_->life = agent_life_;
  apply_->until = now() + seconds(10);
  apply_->change = std::make_unique<mig::Change>(change_ports(), change_options(), name);
  bool ready = false;
  as_apply(-1, [&] { ready = apply_->change->prepare(one->second); });
  if (!ready) return apply_.reset();  // busy, in somebody's way, or nothing to do
  const std::vector<std::string> going = apply_->change->devices_that_go();
  withdrawals_.excuse();
  auto lease = agent_->withdraw({"PID 4242", {{name.uuid, {going.begin(), going.end()}}}});
  if (!lease) return apply_ends(true);
  apply_->lease = *lease;
  apply_later(milliseconds(random_.between(1, 50)), &NodeModel::apply_waits);
}

void NodeModel::apply_later(Duration d, void (NodeModel::*work)()) {
  time_.after(d, [this, work, turn = apply_->turn] {
    if (apply_ && apply_->turn == turn) (this->*work)();
  });
}

// For the agent's word that nobody is given any of it.
void NodeModel::apply_waits() {
  const bool connected = agent_ && agent_life_ == apply_->life;
  if (!connected || now() > apply_->until || random_.chance(1, 40)) return apply_ends(true);
  if (!agent_->withdrawn(*apply_->lease))
    return apply_later(milliseconds(50), &NodeModel::apply_waits);
  const std::vector<std::string> going = apply_->change->devices_that_go();
  kept_back_.goes("another program's change", {going.begin(), going.end()});
  apply_later(milliseconds(random_.between(0, 3000)), &NodeModel::apply_works);
}

void NodeModel::apply_works() {
  note("apply " + apply_->change->report().gpu.uuid);
  as_apply(apply_->dies ? static_cast<int>(random_.below(40)) : -1, [&] {
    apply_->change->execute();
    if (apply_->change->report().end == mig::End::kDone) strike(Fault::kApplyBeside);
  });
  if (!apply_->change) return apply_ends(false);
  apply_->change.reset();
  apply_later(milliseconds(random_.between(0, 2000)), &NodeModel::apply_is_done);
}

void NodeModel::apply_is_done() { apply_ends(false); }

// Its connection closes, and the agent looks what became of the GPU.
void NodeModel::apply_ends(bool abandons) {
  if (!apply_) return;
  if (abandons && apply_->change) as_apply(-1, [&] { apply_->change->abandon(); });
  const std::unique_ptr<Apply> ended = std::move(apply_);
  ended->change.reset();
  withdrawals_.excuse();
  kept_back_.has_ended("another program's change");
  if (ended->lease && agent_ && agent_life_ == ended->life) agent_->give_back(*ended->lease);
}

}  // namespace gpuslice::dst
