// Runs CUDA kernels on the CPU (tests only). Blocks run one after another; the threads of a block are fibers that take
// turns, so that a thread can wait for the others at a barrier. What it cannot show: races, memory ordering, and the
// limits of registers, shared memory and launches.
#pragma once
#include <math.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
#define __shared__ static       // one block at a time: what is static belongs to the block

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    unsigned count() const { return x * y * z; }
    dim3 at(unsigned i) const { return {i % x, i / x % y, i / x / y}; }     // the i-th position, x fastest
};
static dim3 gridDim, blockDim, blockIdx, threadIdx;

inline int min(int a, int b) { return a < b ? a : b; }

inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }

namespace shim {

enum State { READY, AT_WARP_BARRIER, AT_BLOCK_BARRIER, POLLING, STUCK, DONE };

struct Fiber {
    static constexpr size_t STACK = 1 << 16;
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state = DONE;
};

static std::vector<std::unique_ptr<Fiber>> fibers;
static ucontext_t scheduler;
static unsigned current;                        // the thread that runs
static const std::function<void()>* kernel;     // with its arguments
static bool backwards = false;                  // run blocks and threads in the opposite order

// Leaves the current fiber until the scheduler picks it again.
inline void pause(State state) {
    Fiber& self = *fibers[current];
    self.state = state;
    swapcontext(&self.context, &scheduler);
}

// A fiber lives as long as the process: each time it is resumed after DONE it runs the kernel for another thread.
inline void fiber_main() {
    for (;;) {
        (*kernel)();
        pause(DONE);
    }
}

inline void add_fiber() {
    fibers.push_back(std::make_unique<Fiber>());
    Fiber& fiber = *fibers.back();
    fiber.stack.reset(new char[Fiber::STACK]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = Fiber::STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
}

// Sets the waiting threads of first .. last - 1 free if all that still run wait at this barrier.
inline bool release(unsigned first, unsigned last, State barrier) {
    unsigned waiting = 0, done = 0;
    for (unsigned i = first; i < last; i++) waiting += fibers[i]->state == barrier, done += fibers[i]->state == DONE;
    if (!waiting || waiting + done < last - first) return false;
    for (unsigned i = first; i < last; i++)
        if (fibers[i]->state == barrier) fibers[i]->state = READY;
    return true;
}

// Lets a warp run until each of its threads is done or waits for the block.
inline void run_warp(unsigned first, unsigned last) {
    do
        for (unsigned k = first; k < last; k++) {
            current = backwards ? first + last - 1 - k : k;
            if (fibers[current]->state == READY) {
                threadIdx = blockDim.at(current);
                swapcontext(&scheduler, &fibers[current]->context);
            }
        }
    while (release(first, last, AT_WARP_BARRIER));
}

// All threads of one block, one warp after another, each as far as it gets: what it does not wait for has not happened.
// False where some wait at a barrier that the others will never reach.
inline bool run_block() {
    const unsigned threads = blockDim.count(), warps = (threads + 31) / 32;
    while (fibers.size() < threads) add_fiber();
    for (unsigned i = 0; i < threads; i++) fibers[i]->state = READY;
    // Threads that poll a barrier in shared memory get another turn, but not forever.
    constexpr unsigned MOST_TURNS = 1 << 16;
    unsigned turns = 0;
    for (;;) {
        for (unsigned k = 0; k < warps; k++) {
            const unsigned first = 32 * (backwards ? warps - 1 - k : k);
            run_warp(first, first + 32 < threads ? first + 32 : threads);
        }
        bool all_done = true, polling = false;
        for (unsigned i = 0; i < threads; i++) {
            all_done &= fibers[i]->state == DONE;
            polling |= fibers[i]->state == POLLING;
        }
        if (all_done) return true;
        if (release(0, threads, AT_BLOCK_BARRIER)) turns = 0;
        else if (!polling || ++turns > MOST_TURNS) return false;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i]->state == POLLING) fibers[i]->state = READY;
    }
}

// The name of an argument's type, as in NumPy: f4, u8; Pf4 points to f4; V52 is a struct of 52 bytes.
template <typename T>
std::string code() {
    if constexpr (std::is_pointer_v<T>) return "P" + code<std::remove_cv_t<std::remove_pointer_t<T>>>();
    const char* kind = std::is_same_v<T, bool> ? "b" : std::is_floating_point_v<T> ? "f"
                     : std::is_integral_v<T> ? (std::is_signed_v<T> ? "i" : "u") : "V";
    return kind + std::to_string(sizeof(T));
}

template <typename... Args, size_t... I>
std::function<void()> with_arguments(void (*function)(Args...), void** args, std::index_sequence<I...>) {
    return [=] { function(*static_cast<std::remove_reference_t<Args>*>(args[I])...); };
}

// The shared memory that a launch asked for, to the byte, so that an access past its end is found.
static unsigned char* shared = nullptr;

// Launches a kernel with pointers to its arguments, as CUDA's driver does, but checks the types of the arguments first.
// 0: done, 1: other arguments expected (see signature), 2: some threads wait at a barrier forever.
template <typename... Args>
int launch(void (*function)(Args...), const unsigned* grid, const unsigned* block, unsigned shared_bytes, void** args,
           const char* types, std::string& signature) {
    signature = ((code<Args>() + " ") + ...);
    if (signature != types) return 1;
    const std::function<void()> bound = with_arguments(function, args, std::index_sequence_for<Args...>{});
    kernel = &bound;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const std::unique_ptr<unsigned char[]> memory(new unsigned char[shared_bytes]);
    shared = memory.get();
    for (unsigned k = 0; k < gridDim.count(); k++) {
        blockIdx = gridDim.at(backwards ? gridDim.count() - 1 - k : k);
        memset(shared, 0xA5, shared_bytes);
        if (!run_block()) {
            fibers.clear();         // they stand in the middle of the kernel
            return 2;
        }
    }
    return 0;
}

}  // namespace shim

inline void __syncthreads() { shim::pause(shim::AT_BLOCK_BARRIER); }
inline void __syncwarp(unsigned = ~0u) { shim::pause(shim::AT_WARP_BARRIER); }
inline unsigned __shfl_sync(unsigned, unsigned value, int lane) {
    static unsigned values[1024];
    values[shim::current] = value;
    __syncwarp();
    const unsigned asked = values[shim::current / 32 * 32 + lane];
    __syncwarp();               // the next values come after all have asked
    return asked;
}
