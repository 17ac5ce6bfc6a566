#include "fault.h"

#include <iterator>

namespace gpuslice::dst {

std::string_view fault_name(Fault fault) {
  constexpr std::string_view kNames[] = {"bad edit",
                                         "kubelet restart",
                                         "folder wiped",
                                         "our socket removed",
                                         "stream drop",
                                         "registration refused",
                                         "GPU lost",
                                         "GPU restored",
                                         "driver slow",
                                         "driver fails",
                                         "driver away",
                                         "agent killed",
                                         "reboot",
                                         "disk full",
                                         "pods unknown",
                                         "clock jump",
                                         "bad MIG edit",
                                         "MIG calls fail",
                                         "killed in change",
                                         "foreign change",
                                         "XID",
                                         "killed between calls",
                                         "power cut",
                                         "two wishes at once",
                                         "wish taken back",
                                         "unknown key",
                                         "key removed",
                                         "API away",
                                         "API slow",
                                         "API busy",
                                         "watch cut",
                                         "watch expired",
                                         "patch refused",
                                         "node replaced",
                                         "label taken",
                                         "pause left",
                                         "driver hangs",
                                         "apply beside",
                                         "apply killed",
                                         "ECC errors",
                                         "remap pending",
                                         "remap failed",
                                         "recovery wanted",
                                         "too hot",
                                         "trouble over",
                                         "reset by others",
                                         "holders waited for",
                                         "pod evicted",
                                         "budget forbids",
                                         "evicted, gone",
                                         "evicted, another",
                                         "eviction cut",
                                         "pod never ends",
                                         "marked GPU reset"};
  static_assert(std::size(kNames) == kFaults);
  return kNames[static_cast<size_t>(fault)];
}

}  // namespace gpuslice::dst
