// What Node cannot do itself: descriptors over unix sockets (SCM_RIGHTS), sealed memfds, pidfds,
// peer credentials, openat2. Nothing else belongs here: every line is unsafe code.
//
// Errors are thrown (or reject) with `code` = the errno's name and `syscall` = the failed step, as
// Node's own do. Descriptors that leave this file are close-on-exec and owned by the caller.
#include <fcntl.h>
#include <linux/openat2.h>
#include <napi.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {
constexpr size_t kFdsMax = 253;  // SCM_MAX_FD: the kernel refuses more in one message

Napi::Error Failure(Napi::Env env, const char* step, int error) {
  const char* name = strerrorname_np(error);
  Napi::Error failure = Napi::Error::New(env, std::string(step) + ": " + strerrordesc_np(error));
  failure.Set("code", name == nullptr ? "EUNKNOWN" : name);
  failure.Set("syscall", step);
  return failure;
}

int Descriptor(const Napi::Value& value) {
  const double fd = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (fd >= 0 && fd <= INT32_MAX) return static_cast<int>(fd);
  throw Napi::TypeError::New(value.Env(), "a descriptor must be a number, 0 or more");
}

std::string Text(const Napi::Value& value, const char* name) {
  std::string text = value.IsString() ? value.As<Napi::String>().Utf8Value() : std::string(1, 0);
  if (text.find('\0') == std::string::npos) return text;
  throw Napi::TypeError::New(value.Env(), std::string(name) + " must be a string without NUL");
}

// One request and its answer on a fresh connection, on a thread of its own: an answer may take
// minutes (a template is built), and libuv's pool of four threads would stall the whole agent.
struct Exchange {
  std::string path, request, answer;
  std::vector<int> sent;  // our duplicates: the caller may close its own at any time
  size_t answer_max = 0, fds_max = 0;
  int64_t deadline_ms = 0;
  bool keep_open = false;

  int connection = -1, error = 0;
  std::vector<int> received;
  const char* step = nullptr;
  std::unique_ptr<Napi::Promise::Deferred> promise;
  Napi::ThreadSafeFunction finished;

  ~Exchange() {
    sent.insert(sent.end(), received.begin(), received.end());
    if (connection >= 0) sent.push_back(connection);
    for (int fd : sent) close(fd);
  }
  bool Fail(const char* what, int why) { return step = what, error = why, false; }
  bool Run(), Connect(), Send(), Ready(short events);
  bool Receive(char* into, size_t size), Keep(msghdr* message);
};

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

bool Exchange::Connect() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return Fail("connect", ENAMETOOLONG);
  memcpy(address.sun_path, path.data(), path.size());
  connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connection < 0) return Fail("socket", errno);
  const timeval wait{std::max<int64_t>(deadline_ms - NowMs(), 0) / 1000 + 1, 0};
  setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));  // a full backlog blocks
  const auto* to = reinterpret_cast<const sockaddr*>(&address);
  return connect(connection, to, sizeof(address)) == 0 || Fail("connect", errno);
}

bool Exchange::Ready(short events) {
  for (;;) {
    const int64_t left = deadline_ms - NowMs();
    if (left <= 0) return Fail("poll", ETIMEDOUT);
    pollfd ready{connection, events, 0};
    const int count = poll(&ready, 1, static_cast<int>(left));
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return Fail("poll", errno);
  }
}

bool Exchange::Send() {
  size_t done = 0;
  while (done < request.size()) {
    if (!Ready(POLLOUT)) return false;
    iovec part{request.data() + done, request.size() - done};
    msghdr message{nullptr, 0, &part, 1, nullptr, 0, 0};
    std::vector<char> control(CMSG_SPACE(sent.size() * sizeof(int)));
    if (done == 0 && !sent.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      *header = {CMSG_LEN(sent.size() * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
      memcpy(CMSG_DATA(header), sent.data(), sent.size() * sizeof(int));
    }
    const ssize_t count = sendmsg(connection, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno != EAGAIN && errno != EINTR) return Fail("sendmsg", errno);
    done += static_cast<size_t>(std::max<ssize_t>(count, 0));
  }
  return true;
}

// Takes every descriptor of the message before judging it: one left behind would leak for good.
bool Exchange::Keep(msghdr* message) {
  for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
       header = CMSG_NXTHDR(message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t index = 0; index < count; index += 1) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(header) + index * sizeof(int), sizeof(int));
      received.push_back(fd);
    }
  }
  const bool whole = (message->msg_flags & MSG_CTRUNC) == 0 && received.size() <= fds_max;
  return whole || Fail("recvmsg", EOVERFLOW);
}

bool Exchange::Receive(char* into, size_t size) {
  size_t done = 0;
  while (done < size) {
    if (!Ready(POLLIN)) return false;
    iovec part{into + done, size - done};
    alignas(cmsghdr) char control[CMSG_SPACE(kFdsMax * sizeof(int))];
    msghdr message{nullptr, 0, &part, 1, control, sizeof(control), 0};
    const ssize_t count = recvmsg(connection, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count < 0) return Fail("recvmsg", errno);
    if (!Keep(&message)) return false;
    if (count == 0) return Fail("recvmsg", ECONNRESET);
    done += static_cast<size_t>(count);
  }
  return true;
}

bool Exchange::Run() {
  if (!Connect() || !Send()) return false;
  uint32_t size = 0;  // little endian, as this machine is
  if (!Receive(reinterpret_cast<char*>(&size), sizeof(size))) return false;
  if (size > answer_max) return Fail("recvmsg", EMSGSIZE);
  answer.resize(size);
  return Receive(answer.data(), size);
}

void Settle(Napi::Env env, Exchange* exchange) {
  Napi::HandleScope scope(env);
  if (exchange->error != 0) {
    return exchange->promise->Reject(Failure(env, exchange->step, exchange->error).Value());
  }
  Napi::Array fds = Napi::Array::New(env);
  for (size_t index = 0; index < exchange->received.size(); index += 1) {
    fds.Set(static_cast<uint32_t>(index), exchange->received[index]);
  }
  const std::string& answer = exchange->answer;
  Napi::Object result = Napi::Object::New(env);
  result.Set("answer", Napi::Buffer<char>::Copy(env, answer.data(), answer.size()));
  result.Set("fds", fds);
  result.Set("connection", exchange->keep_open ? exchange->connection : -1);
  exchange->received.clear();  // the caller's from here on
  if (exchange->keep_open) exchange->connection = -1;
  exchange->promise->Resolve(result);
}

// exchange(path, request, fds, { answerMax, fdsMax, timeoutMs, keepOpen })
Napi::Value StartExchange(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto exchange = std::make_unique<Exchange>();
  exchange->path = Text(info[0], "path");
  const auto request = info[1].As<Napi::Buffer<char>>();
  exchange->request.assign(request.Data(), request.Length());
  const auto options = info[3].As<Napi::Object>();  // typed by native/addon.ts
  exchange->answer_max = options.Get("answerMax").ToNumber().Uint32Value();
  exchange->fds_max = options.Get("fdsMax").ToNumber().Uint32Value();
  exchange->deadline_ms = NowMs() + options.Get("timeoutMs").ToNumber().Uint32Value();
  exchange->keep_open = options.Get("keepOpen").ToBoolean();
  const auto fds = info[2].As<Napi::Array>();
  if (fds.Length() > kFdsMax) throw Failure(env, "sendmsg", EINVAL);
  for (uint32_t index = 0; index < fds.Length(); index += 1) {
    exchange->sent.push_back(fcntl(Descriptor(fds.Get(index)), F_DUPFD_CLOEXEC, 3));
    if (exchange->sent.back() < 0) throw Failure(env, "dup", errno);
  }
  exchange->promise = std::make_unique<Napi::Promise::Deferred>(env);
  const Napi::Promise promise = exchange->promise->Promise();
  exchange->finished = Napi::ThreadSafeFunction::New(
      env, Napi::Function::New(env, [](const Napi::CallbackInfo&) {}), "casemate.exchange", 0, 1);
  std::thread([owned = exchange.release()] {
    owned->Run();
    Napi::ThreadSafeFunction finished = owned->finished;
    const napi_status status =
        finished.BlockingCall(owned, [](Napi::Env scope, Napi::Function, Exchange* done) {
          std::unique_ptr<Exchange> ending(done);
          if (static_cast<napi_env>(scope) != nullptr) Settle(scope, done);
        });
    if (status != napi_ok) delete owned;
    finished.Release();
  }).detach();
  return promise;
}

// memfdSealed(name, bytes): read-only for ever, for everybody, this process included.
Napi::Value MemfdSealed(const Napi::CallbackInfo& info) {
  const auto bytes = info[1].As<Napi::Buffer<char>>();
  const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  const int fd = memfd_create(Text(info[0], "name").c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  errno = EIO;  // what a short write is called
  if (pwrite(fd, bytes.Data(), bytes.Length(), 0) != static_cast<ssize_t>(bytes.Length()) ||
      fcntl(fd, F_ADD_SEALS, seals) != 0) {
    const Napi::Error failure = Failure(info.Env(), "memfd", errno);
    close(fd);
    throw failure;
  }
  return Napi::Number::New(info.Env(), fd);
}

Napi::Value Opened(const Napi::CallbackInfo& info, const char* step, long fd) {
  if (fd < 0) throw Failure(info.Env(), step, errno);
  return Napi::Number::New(info.Env(), static_cast<double>(fd));
}

Napi::Value PidfdOpen(const Napi::CallbackInfo& info) {
  return Opened(info, "pidfd_open", syscall(SYS_pidfd_open, Descriptor(info[0]), 0));
}

Napi::Value PeerCredentials(const Napi::CallbackInfo& info) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  const int failed = getsockopt(Descriptor(info[0]), SOL_SOCKET, SO_PEERCRED, &peer, &size);
  if (failed != 0) throw Failure(info.Env(), "getsockopt", errno);
  // A socket that is not connected has pid 0 and uid -1: no identity, so an error.
  if (peer.pid <= 0) throw Failure(info.Env(), "getsockopt", ENOTCONN);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("pid", peer.pid);
  result.Set("uid", peer.uid);
  result.Set("gid", peer.gid);
  return result;
}

// openBeneath(directory, path, flags, mode): never leaves the directory, follows no link at all.
Napi::Value OpenBeneath(const Napi::CallbackInfo& info) {
  open_how how{};
  how.flags = info[2].ToNumber().Uint32Value() | O_CLOEXEC;
  how.mode = info[3].ToNumber().Uint32Value();
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const std::string path = Text(info[1], "path");
  const int directory = Descriptor(info[0]);
  return Opened(info, "openat2", syscall(SYS_openat2, directory, path.c_str(), &how, sizeof(how)));
}

Napi::Value Duplicate(const Napi::CallbackInfo& info) {
  return Opened(info, "dup", fcntl(Descriptor(info[0]), F_DUPFD_CLOEXEC, 3));
}

Napi::Value Pipe(const Napi::CallbackInfo& info) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw Failure(info.Env(), "pipe2", errno);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("read", ends[0]);
  result.Set("write", ends[1]);
  return result;
}

Napi::Object Initialise(Napi::Env env, Napi::Object exports) {
  const auto add = [&](const char* name, Napi::Value (*call)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, call, name));
  };
  add("exchange", StartExchange);
  add("memfdSealed", MemfdSealed);
  add("pidfdOpen", PidfdOpen);
  add("peerCredentials", PeerCredentials);
  add("openBeneath", OpenBeneath);
  add("duplicate", Duplicate);
  add("pipe", Pipe);
  return exports;
}

}  // namespace

NODE_API_MODULE(casemate, Initialise)
