// How kernels are launched and timed.

#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <vector>

#include "memory.cuh"

// Launches in one graph.
constexpr int CHAIN = 1000;

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

void require(bool holds, const char* what) {
    if (!holds) throw std::runtime_error(what);
}

struct Device {
    cudaDeviceProp properties{};
    cudaStream_t stream{};
    unsigned* words{};  // Where kernels leave results: `failed`, `out`, counters and flags.
    static constexpr size_t WORDS = 256;

    Device() {
        check(cudaGetDeviceProperties(&properties, 0));
        check(cudaStreamCreate(&stream));
        check(cudaMalloc(&words, WORDS * sizeof(unsigned)));
    }

    void clear() { check(cudaMemsetAsync(words, 0, WORDS * sizeof(unsigned), stream)); }

    unsigned word(int index) {
        unsigned value;
        check(cudaMemcpyAsync(&value, words + index, sizeof value, cudaMemcpyDeviceToHost, stream));
        check(cudaStreamSynchronize(stream));
        return value;
    }

    // The median of several runs, in seconds, after two that are not counted. `before` is not timed.
    double seconds(const std::function<void()>& run, const std::function<void()>& before = [] {}, int runs = 9) {
        cudaEvent_t start, end;
        check(cudaEventCreate(&start));
        check(cudaEventCreate(&end));
        std::vector<float> times;
        for (int i = -2; i < runs; ++i) {
            before();
            check(cudaEventRecord(start, stream));
            run();
            check(cudaGetLastError());
            check(cudaEventRecord(end, stream));
            check(cudaEventSynchronize(end));
            float milliseconds;
            check(cudaEventElapsedTime(&milliseconds, start, end));
            if (i >= 0) times.push_back(milliseconds);
        }
        check(cudaEventDestroy(start));
        check(cudaEventDestroy(end));
        std::sort(times.begin(), times.end());
        return times[times.size() / 2] * 1e-3;
    }
};

// Launches one kernel with attributes.
struct Launcher {
    cudaLaunchConfig_t config{};
    cudaLaunchAttribute attributes[2]{};

    Launcher(Device& device, int blocks, int threads) {
        config.gridDim = dim3(blocks);
        config.blockDim = dim3(threads);
        config.stream = device.stream;
        config.attrs = attributes;
    }

    cudaLaunchAttribute& attribute(cudaLaunchAttributeID id) {
        attributes[config.numAttrs].id = id;
        return attributes[config.numAttrs++];
    }

    Launcher& cluster(int blocks) {
        attribute(cudaLaunchAttributeClusterDimension).val.clusterDim = {unsigned(blocks), 1, 1};
        return *this;
    }

    Launcher& dependent() {
        attribute(cudaLaunchAttributeProgrammaticStreamSerialization).val.programmaticStreamSerializationAllowed = 1;
        return *this;
    }

    template <typename... Parameters, typename... Arguments>
    void run(void (*kernel)(Parameters...), Arguments... arguments) {
        check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
    }
};

// Seconds for each of CHAIN launches in one graph. `count`: whether each of them must have raised words[0] by one.
double chain_seconds(Device& device, const std::function<void()>& launch, bool count) {
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    check(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal));
    try {
        for (int i = 0; i < CHAIN; ++i) launch();
    } catch (...) {
        cudaStreamEndCapture(device.stream, &graph);
        throw;
    }
    check(cudaStreamEndCapture(device.stream, &graph));
    check(cudaGraphInstantiate(&executable, graph, 0));
    double found = device.seconds([&] { check(cudaGraphLaunch(executable, device.stream)); }, [&] { device.clear(); });
    if (count) require(device.word(0) == CHAIN, "kernels did not run one after the other");
    check(cudaGraphExecDestroy(executable));
    check(cudaGraphDestroy(graph));
    return found / CHAIN;
}

double copy_rate(Device& device, size_t bytes, bool own_kernel) {
    void *source, *target;
    check(cudaMalloc(&source, bytes));
    check(cudaMalloc(&target, bytes));
    fill_kernel<<<1024, 256, 0, device.stream>>>(static_cast<unsigned*>(source), bytes / 4);
    size_t count = bytes / sizeof(uint4);
    double found = device.seconds([&] {
        if (own_kernel)
            copy_kernel<<<unsigned((count + 1023) / 1024), 256, 0, device.stream>>>(
                static_cast<uint4*>(source), static_cast<uint4*>(target), count);
        else
            check(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDeviceToDevice, device.stream));
    });
    check(cudaFree(source));
    check(cudaFree(target));
    return 2.0 * bytes / found;
}

double l2_rate(Device& device, size_t bytes) {
    unsigned* source;
    check(cudaMalloc(&source, bytes));
    fill_kernel<<<1024, 256, 0, device.stream>>>(source, bytes / 4);
    constexpr int passes = 100;
    int blocks = 4 * device.properties.multiProcessorCount;
    auto run = [&] {
        read_kernel<<<blocks, 512, 0, device.stream>>>(
            reinterpret_cast<uint4*>(source), unsigned(bytes / sizeof(uint4)), passes, device.words);
    };
    double found = device.seconds(run, [&] { device.clear(); });
    unsigned expected = 0;
    for (size_t i = 0; i < bytes / 4; i += 4) {
        unsigned x = 0;
        for (size_t k = 0; k < 4; ++k) x ^= unsigned(i + k) * 2654435761u;
        expected += x;
    }
    require(device.word(0) == expected * passes, "the sum of what was read is wrong");
    check(cudaFree(source));
    return double(bytes) * passes / found;
}

// blocks: all of them have to be resident at once; cooperative launches see to that.
template <typename... Arguments>
double cooperative_seconds(Device& device, void (*kernel)(Arguments...), int blocks, int threads, Arguments... arguments) {
    int each;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, 0));
    require(each * device.properties.multiProcessorCount >= blocks, "not all blocks would be resident at once");
    void* pointers[] = {&arguments...};
    auto run = [&] {
        check(cudaLaunchCooperativeKernel(reinterpret_cast<void*>(kernel), dim3(blocks), dim3(threads), pointers, 0, device.stream));
    };
    return device.seconds(run, [&] { device.clear(); });
}

// size: blocks of a cluster. all: as many clusters as run at once, or one.
template <typename... Parameters, typename... Arguments>
double cluster_seconds(Device& device, int size, bool all, void (*kernel)(Parameters...), Arguments... arguments) {
    if (size > 8) check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    int clusters = 0;
    Launcher question(device, size, 256);
    question.cluster(size);
    check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &question.config));
    require(clusters >= 1, "no cluster of this size fits on this device");
    auto run = [&] { Launcher(device, all ? size * clusters : size, 256).cluster(size).run(kernel, arguments...); };
    return device.seconds(run, [&] { device.clear(); });
}
