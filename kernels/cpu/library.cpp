// The library's face: which instruction sets were compiled in and run here, the threads, and the scratch memory.
//
// Threads are those of the OpenMP runtime that torch has already loaded, so that a process never holds two. The library is not
// linked with one: the loader hands over the address of GOMP_parallel, which GNU's, LLVM's and Intel's runtimes all have.

#include "parallel.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

extern "C" {
const void* const* fastdraw_kernels_baseline();
#ifdef FASTDRAW_HAS_v3
const void* const* fastdraw_kernels_v3();
const void* const* fastdraw_kernels_v4();
#endif
}

namespace {

typedef void (*ParallelRegion)(void (*body)(void*), void* data, unsigned threads, unsigned flags);
ParallelRegion parallel_region = nullptr;

struct Arena {
  void* base = nullptr;
  size_t bytes = 0;
  ~Arena() { free(base); }
};

thread_local Arena arenas[kScratchSlots];

// What a thread keeps of its tasks' memory from one call to the next; getting it anew takes longer than small calls do.
constexpr size_t kKept = 32 << 20;

// Gives back what only a large call needed.
void trim() {
  Arena& arena = arenas[0];
  if (arena.bytes <= kKept) return;
  free(arena.base);
  arena.base = nullptr, arena.bytes = 0;
}

int64_t now(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t;
  clock_gettime(clock, &t);
  return int64_t(t.tv_sec) * 1000000000 + t.tv_nsec;
}

struct Share {
  FastdrawTasks run;
  void* job;
  int64_t tasks, chunk;
  int64_t next;
  bool failed;
  int64_t finished;  // tasks
  int64_t end;       // of the last task
  int64_t stopped;   // The longest that a thread with tasks was kept from running.
};

// How many threads a caller asks for. Where other programs use the cores, a thread of the team may not run for milliseconds,
// and all wait for it, even if no task is left for it. After two such waits the caller asks for half as many for a while, for
// twice as long each time, and then tries all of them again.
struct Pace {
  static constexpr int64_t kLongWait = 200 * 1000, kShortest = 2 * 1000 * 1000, kLongest = 1000 * 1000 * 1000;  // ns
  static constexpr int kCalm = 16;
  int64_t allowed = INT64_MAX, until = 0, pause = kShortest;
  int waits = 0, calm = 0;  // Long waits of late, and calls of all threads since the last of them.

  int64_t threads(int64_t wanted, int64_t start) {
    if (start >= until) allowed = INT64_MAX;
    return wanted < allowed ? wanted : allowed;
  }

  // `wait` of the `whole` time of a call went by while a thread of the team was not run.
  void saw(int64_t threads, int64_t wait, int64_t whole, int64_t end) {
    if (wait < kLongWait || 2 * wait < whole) {
      if (allowed == INT64_MAX && ++calm == kCalm) waits = 0, pause = kShortest;
      return;
    }
    calm = 0;
    if (++waits < 2) return;
    allowed = threads / 2, until = end + pause;
    if (pause < kLongest) pause *= 2;
  }
};

thread_local Pace pace;

void take_chunks(void* data) {
  Share* share = static_cast<Share*>(data);
  const int64_t start = now(), ran = now(CLOCK_THREAD_CPUTIME_ID);
  for (int64_t mine = 0;;) {
    const int64_t begin = __atomic_fetch_add(&share->next, share->chunk, __ATOMIC_RELAXED);
    if (begin >= share->tasks) {
      if (!mine) return;
      const int64_t end = now(), stopped = end - start - (now(CLOCK_THREAD_CPUTIME_ID) - ran);
      int64_t longest = __atomic_load_n(&share->stopped, __ATOMIC_RELAXED);
      while (stopped > longest && !__atomic_compare_exchange_n(&share->stopped, &longest, stopped, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      }
      if (__atomic_add_fetch(&share->finished, mine, __ATOMIC_RELAXED) == share->tasks) share->end = end;
      return trim();
    }
    const int64_t end = begin + share->chunk < share->tasks ? begin + share->chunk : share->tasks;
    if (!share->run(share->job, begin, end)) __atomic_store_n(&share->failed, true, __ATOMIC_RELAXED);
    mine += end - begin;
  }
}

bool share_out(int64_t tasks, int64_t chunk, int64_t threads, FastdrawTasks run, void* job) {
  const bool alone = threads <= 1 || tasks <= 1 || !parallel_region;
  const int64_t start = alone ? 0 : now();
  if (!alone) threads = pace.threads(threads, start);
  if (alone || threads <= 1) {
    const bool done = tasks <= 0 || run(job, 0, tasks);
    trim();
    return done;
  }
  Share share{run, job, tasks, chunk, 0, false, 0, start, 0};
  parallel_region(take_chunks, &share, unsigned(threads), 0);
  const int64_t end = now();
  pace.saw(threads, share.stopped + (end - share.end), end - start, end);
  return !share.failed;
}

}  // namespace

bool fastdraw_parallel(int64_t tasks, int64_t threads, FastdrawTasks run, void* job) {
  // A few chunks per thread, so that a thread held up by something else does not hold up the rest.
  return share_out(tasks, tasks / (4 * (threads > 1 ? threads : 1)) + 1, threads, run, job);
}

bool fastdraw_parallel_each(int64_t tasks, int64_t threads, FastdrawTasks run, void* job) {
  return share_out(tasks, 1, threads, run, job);
}

void* fastdraw_scratch(size_t bytes, int slot) {
  Arena& arena = arenas[slot];
#ifdef __SANITIZE_ADDRESS__
  // Of this call's size and no larger, so that what lies behind it is seen.
  arena.bytes = 0;
#endif
  if (bytes > arena.bytes) {
    free(arena.base);
    arena.bytes = 0;
#ifdef __SANITIZE_ADDRESS__
    const size_t wanted = bytes;
#else
    const size_t wanted = (bytes + bytes / 4 + 4095) / 4096 * 4096;
#endif
    if (posix_memalign(&arena.base, 64, wanted) != 0) return arena.base = nullptr;
    // Numbers in the padding of rows are multiplied and thrown away: they shall not be slow ones.
    memset(arena.base, 0, wanted);
    arena.bytes = wanted;
  }
  return arena.base;
}

extern "C" {

#define FASTDRAW_EXPORT __attribute__((visibility("default")))

// What it was built of: kernels/cpu/sources.py.
#define FASTDRAW_TEXT_OF(name) #name
#define FASTDRAW_TEXT(name) FASTDRAW_TEXT_OF(name)
FASTDRAW_EXPORT const char* fastdraw_sources() { return FASTDRAW_TEXT(FASTDRAW_SOURCES); }

// Hands over GOMP_parallel; null makes everything run on the calling thread.
FASTDRAW_EXPORT void fastdraw_set_parallel_region(void* address) {
  parallel_region = reinterpret_cast<ParallelRegion>(address);
}

// The kernels of one instruction set (0: any machine, 1: AVX2 with FMA, 2: AVX-512), in the order of kernels.cpp: for each
// function its address for float32, then for float64. Null where this machine or this build lacks the instructions.
FASTDRAW_EXPORT const void* const* fastdraw_kernels(int level) {
  if (level == 0) return fastdraw_kernels_baseline();
#ifdef FASTDRAW_HAS_v3
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (level == 1 && v3) return fastdraw_kernels_v3();
  if (level == 2 && v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    return fastdraw_kernels_v4();
#endif
  return nullptr;
}
}
