// A library of kernels that Python can call (tests only). kernels.cu is the text that the backend would give to NVRTC, and
// kernels.inc lists the instantiations: one line KERNEL(number, name<...>) each.
#include "kernels.cu"

extern "C" void run_backwards(int yes) { shim::backwards = yes; }

// The accesses to shared memory of the next launches are noted from now on, or no longer.
extern "C" void note_accesses(int yes) {
    shim::noting = yes;
    for (auto& thread : shim::notes) thread.clear();
}

// The number of noted accesses of a thread; where each begins, in bytes, and its size.
extern "C" int accesses(int thread, const unsigned** pairs) {
    static_assert(sizeof(std::pair<unsigned, unsigned>) == 2 * sizeof(unsigned), "an array of numbers");
    *pairs = (const unsigned*)shim::notes[thread].data();
    return (int)shim::notes[thread].size();
}

extern "C" int launch(int number, const unsigned* grid, const unsigned* block, unsigned shared, void** args,
                      const char* types, const char** expected) {
    static std::string signature;
    int status = -1;
    switch (number) {
#define KERNEL(number, ...) \
        case number: status = shim::launch(__VA_ARGS__, grid, block, shared, args, types, signature); break;
#include "kernels.inc"
    }
    *expected = signature.c_str();
    return status;
}
