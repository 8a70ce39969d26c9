// What ptx.cu has for a GPU, on the CPU (tests only), and stricter: a copy is made when its thread waits for it, not before,
// so that a kernel that forgets to wait reads what was there.
#pragma once

inline unsigned char* shared_memory() { return shim::shared; }

namespace shim {

struct Copy {
    void* to;
    const void* from;       // null for zeros
    int bytes;
};
static std::vector<std::deque<std::vector<Copy>>> copies(1024);     // of each thread: groups, the last one still open

inline std::deque<std::vector<Copy>>& my_copies() {
    auto& groups = copies[current];
    if (groups.empty()) groups.emplace_back();
    return groups;
}

template <int S>
inline float element(unsigned bits, int which) {
    if constexpr (S == 1) {
        float v;
        memcpy(&v, &bits, 4);
        return v;
    } else {
        const unsigned short half = (unsigned short)(bits >> 16 * which);
        _Float16 v;
        memcpy(&v, &half, 2);
        return (float)v;
    }
}

}  // namespace shim

template <int BYTES>
inline void copy_async(void* to, const void* from, bool valid) {
    if ((uintptr_t)to % BYTES || (valid && (uintptr_t)from % BYTES)) __builtin_trap();      // as the GPU does
    const shim::Copy copy = {to, valid ? from : nullptr, BYTES};
    shim::my_copies().back().push_back(copy);
}

inline void copies_commit() {
    shim::my_copies();
    shim::copies[shim::current].emplace_back();
}

template <int PENDING>
inline void copies_wait() {
    auto& groups = shim::my_copies();
    for (; groups.size() > PENDING + 1; groups.pop_front())
        for (const shim::Copy& copy : groups.front())
            if (copy.from) memcpy(copy.to, copy.from, copy.bytes);
            else memset(copy.to, 0, copy.bytes);
}

inline unsigned to_tf32(float v) {
    unsigned bits;
    memcpy(&bits, &v, 4);
    return v - v == 0 ? (bits + 0x1000) & ~0x1fffu : bits;          // infinities and NaNs stay
}

// The threads of a warp lay out what they hold, wait for each other, and each computes its own part of D. Two tables take
// turns, so that nobody overwrites what another still reads.
template <int S, int MT, int NT>
inline void warp_multiply(float (&d)[MT][NT][4], const unsigned (&a)[MT][4], const unsigned (&b)[NT][2]) {
    static unsigned tables[2][32][32][4 * MT + 2 * NT];             // [turn][warp][lane]
    static unsigned char turns[1024];
    const unsigned warp = shim::current / 32, lane = shim::current % 32;
    auto& table = tables[turns[shim::current]++ % 2][warp];
    memcpy(table[lane], a, sizeof a);
    memcpy(table[lane] + 4 * MT, b, sizeof b);
    __syncwarp();
    for (int i = 0; i < MT; i++)
        for (int j = 0; j < NT; j++)
            for (int q = 0; q < 4; q++) {
                const unsigned row = lane / 4, column = lane % 4 * 2 + q % 2;               // of the 16 x 8 piece, row + 8 (q / 2)
                for (int k = 0; k < 8 * S; k++) {
                    const unsigned t = k / S % 4, high = k / (4 * S);
                    d[i][j][q] += shim::element<S>(table[4 * row + t][4 * i + q / 2 + 2 * high], k % S)
                                  * shim::element<S>(table[4 * column + t][4 * MT + 2 * j + high], k % S);
                }
            }
}
