// What one GPU can do at best, measured without any library: benchmarks/probe.py compiles this, runs it and reads its lines.
//
// Each figure is printed as one line of JSON as soon as it is known: {"name": ..., "value": ..., "unit": ...}, or
// {"name": ..., "error": ...}. Nothing can hang: whatever waits for another block is launched so that all blocks are resident,
// or not at all, and gives up after SPIN_LIMIT cycles. Every result that a kernel gives back is compared with what it must be.

#include <cuda_runtime.h>

#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>

#include "blocks.cuh"
#include "device.cuh"

using std::string;

// Barriers, hops and loads in one kernel.
constexpr int ROUNDS = 2000;

void report(const string& name, const char* unit, const std::function<double()>& measure) {
    try {
        printf("{\"name\": \"%s\", \"value\": %.6g, \"unit\": \"%s\"}\n", name.c_str(), measure(), unit);
    } catch (const std::exception& error) {
        printf("{\"name\": \"%s\", \"error\": \"%s\"}\n", name.c_str(), error.what());
        // Left standing it would be taken for the next figure's.
        cudaGetLastError();
    }
    fflush(stdout);
}

int main() {
    // A pipe would keep lines back.
    setvbuf(stdout, nullptr, _IOLBF, 0);
    try {
        Device device;
        int processors = device.properties.multiProcessorCount, capability = device.properties.major;
        unsigned *failed = device.words + 1, *out = device.words + 2, *flags = device.words + 64;
        auto in_time = [&](double seconds) {
            require(device.word(1) == 0, "a block waited for another in vain");
            return seconds;
        };
        constexpr double MICRO = 1e6, NANO = 1e9, GIGA = 1e-9;

        report("copy of 1 GiB by a kernel", "GB/s", [&] { return copy_rate(device, size_t(1) << 30, true) * GIGA; });
        report("copy of 1 GiB by the driver", "GB/s", [&] { return copy_rate(device, size_t(1) << 30, false) * GIGA; });
        report("reading 16 MiB from L2", "GB/s", [&] { return l2_rate(device, size_t(16) << 20) * GIGA; });

        report("node of a graph: an empty kernel, 1 block", "us", [&] {
            return chain_seconds(device, [&] { empty_kernel<<<1, 32, 0, device.stream>>>(); }, false) * MICRO;
        });
        report("node of a graph: an empty kernel, 128 blocks", "us", [&] {
            return chain_seconds(device, [&] { empty_kernel<<<128, 128, 0, device.stream>>>(); }, false) * MICRO;
        });
        report("node of a graph: one number raised, 128 blocks", "us", [&] {
            return chain_seconds(device, [&] { count_kernel<<<128, 128, 0, device.stream>>>(device.words); }, true) * MICRO;
        });
        if (capability >= 9) {
            auto launch = [&](void (*kernel)(volatile unsigned*)) {
                return [&device, kernel] { Launcher(device, 128, 128).dependent().run(kernel, device.words); };
            };
            report("dependent node: waits, then lets the next begin", "us",
                   [&] { return chain_seconds(device, launch(dependent_kernel<false>), true) * MICRO; });
            report("dependent node: lets the next begin, then waits", "us",
                   [&] { return chain_seconds(device, launch(dependent_kernel<true>), true) * MICRO; });
        }
        for (int blocks : {processors, 2 * processors}) {
            string size = std::to_string(blocks) + " blocks";
            report("grid barrier of cooperative groups, " + size, "us", [&] {
                return cooperative_seconds(device, grid_sync_kernel, blocks, 256, ROUNDS) / ROUNDS * MICRO;
            });
            report("grid barrier by one counter in memory, " + size, "us", [&] {
                return in_time(cooperative_seconds(device, flag_barrier_kernel, blocks, 256, flags, failed, ROUNDS)) / ROUNDS *
                       MICRO;
            });
        }
        report("hop between two blocks through memory", "ns", [&] {
            return in_time(cooperative_seconds(device, memory_answer_kernel, 2, 32, flags, failed, ROUNDS)) / ROUNDS / 2 * NANO;
        });
        if (capability >= 9) {
            for (int size : {2, 4, 8, 16}) {
                string name = "cluster barrier of " + std::to_string(size) + " blocks";
                report(name + ", one cluster", "ns", [&] {
                    return cluster_seconds(device, size, false, cluster_barrier_kernel<true>, ROUNDS) / ROUNDS * NANO;
                });
                report(name + ", all that fit", "ns", [&] {
                    return cluster_seconds(device, size, true, cluster_barrier_kernel<true>, ROUNDS) / ROUNDS * NANO;
                });
                report(name + ", all that fit, ordering nothing", "ns", [&] {
                    return cluster_seconds(device, size, true, cluster_barrier_kernel<false>, ROUNDS) / ROUNDS * NANO;
                });
            }
            unsigned last = 0;
            for (int i = 0; i < ROUNDS; ++i) last = (last * 5 + 77) % LINKS;
            auto arrived = [&](unsigned expected, double seconds) {
                require(device.word(2) == expected, "a result is wrong");
                return seconds;
            };
            report("load from this block's shared memory", "ns", [&] {
                return arrived(last, cluster_seconds(device, 2, false, shared_load_kernel<false>, ROUNDS, out)) / ROUNDS * NANO;
            });
            report("load from another block's shared memory", "ns", [&] {
                return arrived(last, cluster_seconds(device, 2, false, shared_load_kernel<true>, ROUNDS, out)) / ROUNDS * NANO;
            });
            auto answers = [&](void (*kernel)(int, unsigned*, unsigned*)) {
                double found = in_time(cluster_seconds(device, 2, false, kernel, ROUNDS, failed, out));
                return arrived(ROUNDS, found) / ROUNDS / 2 * NANO;
            };
            string hop = "hop between two blocks of a cluster, ";
            report(hop + "by a flag", "ns", [&] { return answers(shared_answer_kernel<FLAG>); });
            report(hop + "by an mbarrier", "ns", [&] { return answers(shared_answer_kernel<MBARRIER>); });
            report(hop + "by st.async", "ns", [&] { return answers(shared_answer_kernel<ASYNC>); });
        }
    } catch (const std::exception& error) {
        printf("{\"name\": \"device\", \"error\": \"%s\"}\n", error.what());
        return 1;
    }
    return 0;
}
