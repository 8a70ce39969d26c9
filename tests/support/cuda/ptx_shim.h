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

// The accesses to shared memory of each thread, in its order, if they are wanted: (byte, number of bytes).
static bool noting = false;
static std::vector<std::pair<unsigned, unsigned>> notes[1024];

inline void note(const void* address, size_t bytes) {
    if (noting) notes[current].emplace_back((unsigned)((const unsigned char*)address - shared), (unsigned)bytes);
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

inline int keep(int v) { return v; }
inline float float_of(unsigned bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

inline void note_access(const void* address, int bytes) { shim::note(address, bytes); }

template <int BYTES, typename T>
inline void copy_async(T* tile, int at, const T* from, bool valid) {
    T* to = tile + at;
    if ((uintptr_t)to % BYTES || (valid && (uintptr_t)from % BYTES)) __builtin_trap();      // as the GPU does
    shim::note(to, BYTES);
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

// By the definition of ldmatrix: thread 8 m + i passes the address of row i of matrix m, and thread i gets of each matrix
// the elements 2 (i % 4) and 2 (i % 4) + 1 of row i / 4; transposed, of the rows 2 (i % 4) and 2 (i % 4) + 1 element i / 4.
template <bool TRANSPOSED, typename T>
inline void load_matrices(unsigned (&matrix)[4], const T* tile, int at) {
    static const char* tables[2][32][32];                           // [turn][warp][lane]
    static unsigned char turns[1024];
    const unsigned warp = shim::current / 32, lane = shim::current % 32;
    auto& rows = tables[turns[shim::current]++ % 2][warp];
    if ((uintptr_t)(tile + at) % 16) __builtin_trap();              // as the GPU does
    shim::note(tile + at, 16);
    rows[lane] = (const char*)(tile + at);
    __syncwarp();
    for (int m = 0; m < 4; m++)
        for (unsigned c = 0; c < 2; c++) {
            const unsigned row = TRANSPOSED ? lane % 4 * 2 + c : lane / 4, column = TRANSPOSED ? lane / 4 : lane % 4 * 2 + c;
            memcpy((char*)&matrix[m] + 2 * c, rows[8 * m + row] + 2 * column, 2);
        }
}

// The threads of a warp lay out what they hold, wait for each other, and each computes its own part of D. Two tables take
// turns, so that nobody overwrites what another still reads.
template <int S, int MT, int NT>
inline void warp_multiply(float (&d)[MT][NT][4], const unsigned (&a)[2 * MT][2], const unsigned (&b)[NT][2]) {
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
                    d[i][j][q] += shim::element<S>(table[4 * row + t][4 * i + q / 2 * 2 + high], k % S)
                                  * shim::element<S>(table[4 * column + t][4 * MT + 2 * j + high], k % S);
                }
            }
}
