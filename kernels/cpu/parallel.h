// Sharing work among threads, and each thread's scratch memory. Compiled once, called from every instruction set's kernels.
#pragma once

#include <stddef.h>
#include <stdint.h>

constexpr int kScratchSlots = 6, kWeightSlot = 5;

// Does the tasks begin <= i < end. False where memory ran out.
typedef bool (*FastdrawTasks)(void* job, int64_t begin, int64_t end);

extern "C" {

// Does all tasks on at most `threads` threads. Which thread does which task is left to chance, so tasks must not share results.
__attribute__((visibility("hidden"))) bool fastdraw_parallel(int64_t tasks, int64_t threads, FastdrawTasks run, void* job);

// The same for few large tasks: a thread takes one at a time, in their order.
__attribute__((visibility("hidden"))) bool fastdraw_parallel_each(int64_t tasks, int64_t threads, FastdrawTasks run, void* job);

// Memory of the calling thread, aligned for vectors; what it held before is lost where it grows. Null where memory ran out.
// Slot 0 is for tasks; the others, below kScratchSlots, for what hands tasks out.
__attribute__((visibility("hidden"))) void* fastdraw_scratch(size_t bytes, int slot = 0);
}
