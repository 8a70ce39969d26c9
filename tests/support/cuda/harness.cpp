// A library of kernels that Python can call (tests only). kernels.cu is the text that the backend would give to NVRTC, and
// kernels.inc lists the instantiations: one line KERNEL(number, name<...>) each.
#include "kernels.cu"

extern "C" void run_backwards(int yes) { shim::backwards = yes; }

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
