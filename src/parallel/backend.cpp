// The one file that knows which collective library is underneath. Gloo's headers are Debian's, its
// code is libtorch's; the classes used here have the same layout in both.
#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include <c10/util/Exception.h>
#include <c10/util/Flags.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef TRIPTYCH_CUDA
#ifndef USE_C10D_NCCL
#define USE_C10D_NCCL
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "base/error.h"
#include "parallel/group_host.h"

C10_DECLARE_int(caffe2_log_level);  // the least level that c10 prints; 2: errors

namespace triptych {

namespace {

c10::intrusive_ptr<c10d::Backend> make_gloo(const GroupHost& host,
                                            const c10::intrusive_ptr<c10d::Store>& store,
                                            int64_t rank, int64_t size) {
  auto options = c10d::ProcessGroupGloo::Options::create(host.timeout);
  // Name resolution may pick an address that leads nowhere and then hangs until the time-out.
  options->devices.push_back(
      host.device_interface.empty()
          ? c10d::ProcessGroupGloo::createDefaultDevice()
          : c10d::ProcessGroupGloo::createDeviceForInterface(host.device_interface));
  options->threads = 1;  // cores are for compute; collectives of one group run in order anyway
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(rank),
                                                     static_cast<int>(size), options);
}

#ifdef TRIPTYCH_CUDA
c10::intrusive_ptr<c10d::Backend> make_nccl(const GroupHost& host,
                                            const c10::intrusive_ptr<c10d::Store>& store,
                                            int64_t rank, int64_t size) {
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = host.timeout;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, static_cast<int>(rank),
                                                             static_cast<int>(size), options);
  backend->setBoundDeviceId(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(host.local_rank)));
  return backend;
}
#endif

}  // namespace

c10::intrusive_ptr<c10d::Backend> make_backend(const GroupHost& host, c10::DeviceType device,
                                               const std::string& name, int64_t rank,
                                               int64_t size) {
  const auto store = c10::make_intrusive<c10d::PrefixStore>("g/" + name, host.store);
  if (device == c10::DeviceType::CPU) return make_gloo(host, store, rank, size);
#ifdef TRIPTYCH_CUDA
  if (device == c10::DeviceType::CUDA) return make_nccl(host, store, rank, size);
#endif
  fail("parallel: this build has no collectives for device '", c10::DeviceTypeName(device, true),
       "'; it was configured without TRIPTYCH_CUDA");
}

bool scatters_by_all_reduce(c10::DeviceType device) { return device == c10::DeviceType::CPU; }

std::string message_of(const std::exception& error) {
  const auto* c10_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = c10_error != nullptr ? c10_error->what_without_backtrace() : error.what();
  // Gloo: "[/its/source.cc:537] what happened. This is typically caused by ..."
  text.resize(std::min(text.size(), text.find(". This is typically caused by")));
  if (const auto end = text.find("] "); text.starts_with("[/") && end != std::string::npos) {
    text.erase(0, end + 2);
  }
  return text;
}

void quiet_library() {
  // c10d writes a warning with a stack for every broken connection; we say it in one line ourselves
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = 2;
}

}  // namespace triptych
