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

// --- the instructions of sm_90a -------------------------------------------------------------------

// In 64 bits of shared memory: the phase, the threads that it was made for and that are missing, and the bytes that are.
namespace shim {

struct Barrier {
    unsigned char phase, threads, missing, made;
    int bytes;
};
struct Box {
    std::function<void()> copy;
    void* barrier;
    int bytes;
};
static std::vector<Box> boxes;                  // copies that have been started

inline void complete(Barrier& barrier) {
    if (barrier.missing || barrier.bytes) return;
    barrier.phase++;
    barrier.missing = barrier.threads;
}

inline Barrier& barrier_at(unsigned long long* at) {
    static_assert(sizeof(Barrier) == sizeof *at);
    return *reinterpret_cast<Barrier*>(at);
}

}  // namespace shim

inline unsigned nearest_tf32(float v) {
    unsigned bits;
    memcpy(&bits, &v, 4);
    return v - v == 0 ? (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu : bits;        // infinities and NaNs stay
}

inline void stores_are_visible() {}
inline void products_begin() {}
inline void products_commit() {}
template <int PENDING> inline void products_wait() {}
template <int COUNT, bool MORE> inline void set_registers() {}

inline void barrier_make(unsigned long long* at, int threads) {
    shim::barrier_at(at) = {0, (unsigned char)threads, (unsigned char)threads, 1, 0};
}

inline void barrier_arrive(unsigned long long* at) {
    shim::Barrier& barrier = shim::barrier_at(at);
    while (barrier.made != 1 || barrier.missing == 0) shim::pause(shim::STUCK);     // more threads than it was made for
    barrier.missing--;
    shim::complete(barrier);
}

inline void barrier_expect(unsigned long long* at, int bytes) {
    shim::barrier_at(at).bytes += bytes;
    barrier_arrive(at);
}

// Copies are made when a thread waits for them, the last one first.
inline void barrier_wait(unsigned long long* at, int phase) {
    shim::Barrier& barrier = shim::barrier_at(at);
    if (barrier.made != 1) __builtin_trap();
    while (barrier.phase % 2 == phase % 2) {
        for (size_t k = shim::boxes.size(); k-- > 0;)
            if (shim::boxes[k].barrier == at) {
                shim::boxes[k].copy();
                barrier.bytes -= shim::boxes[k].bytes;
                shim::boxes.erase(shim::boxes.begin() + k);
            }
        shim::complete(barrier);
        if (barrier.phase % 2 == phase % 2) shim::pause(shim::POLLING);
    }
}

inline void copy_bulk(float* to, const float* from, int bytes, unsigned long long* at) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16) __builtin_trap();         // as the GPU does
    shim::boxes.push_back({[=] { memcpy(to, from, bytes); }, at, bytes});
}

// What `encoded` in warpgroups.py makes is opaque; the tests put these numbers in its place.
struct BoxMap {
    unsigned long long address, sizes[5], strides[4], box[5], type;
};

inline void copy_box(float* to, const BoxMap& map, int n, int c, int block, int x, int y, unsigned long long* at) {
    const long long first[5] = {n, c, block, x, y};
    if (((unsigned char*)to - shim::shared) % 1024) __builtin_trap();
    int count = 1;
    for (auto size : map.box) count *= (int)size;
    shim::boxes.push_back({[=] {
        for (int e = 0; e < count; e++) {
            const char* from = (const char*)map.address;
            bool inside = true;
            for (int axis = 0, rest = e; axis < 5; rest /= (int)map.box[axis++]) {
                const long long index = first[axis] + rest % (int)map.box[axis];
                inside &= index >= 0 && index < (long long)map.sizes[axis];
                from += index * (long long)(axis ? map.strides[axis - 1] : 4);
            }
            const int line = e / 32, place = e % 32;
            float* element = to + line * 32 + ((place / 4 ^ line % 8) * 4 + place % 4);
            float v = 0;
            if (inside) memcpy(&v, from, 4);
            *element = map.type == 11 ? float_of(nearest_tf32(v)) : v;     // TFLOAT32
        }
    }, at, 4 * count});
}

// As warp_multiply: each warp has 16 of the 64 rows. The units truncate what is not rounded.
template <class Tile, int N>
inline void warpgroup_multiply(float (&d)[N / 8][4], const unsigned (&a)[4], const float* place, int k) {
    static unsigned tables[2][32][32][4];                           // [turn][warp][lane]
    static unsigned char turns[1024];
    const unsigned warp = shim::current / 32, lane = shim::current % 32;
    auto& table = tables[turns[shim::current]++ % 2][warp];
    memcpy(table[lane], a, sizeof a);
    if (((unsigned char*)place - shim::shared) % (8 * Tile::LINE * 4)) __builtin_trap();
    __syncwarp();
    for (int i = 0; i < N / 8; i++)
        for (int q = 0; q < 4; q++)
            for (int c = 0; c < 8; c++) {
                unsigned bits;
                memcpy(&bits, place + Tile::at(8 * i + lane % 4 * 2 + q % 2, k + c), 4);
                d[i][q] += shim::element<1>(table[lane / 4 * 4 + c % 4][q / 2 + c / 4 * 2] & ~0x1fffu, 0)
                           * shim::element<1>(bits & ~0x1fffu, 0);
            }
}

template <class Tile, int N>
inline void warpgroup_multiply_tiles(float (&d)[N / 8][4], const float* a, const float* b, int k) {
    const unsigned row = shim::current / 32 % 4 * 16 + shim::current % 32 / 4, t = shim::current % 4;
    for (const float* place : {a, b})
        if (((unsigned char*)place - shim::shared) % (8 * Tile::LINE * 4)) __builtin_trap();
    for (int i = 0; i < N / 8; i++)
        for (int q = 0; q < 4; q++)
            for (int c = 0; c < 8; c++) {
                unsigned x, y;
                memcpy(&x, a + Tile::at(row + q / 2 * 8, k + c), 4);
                memcpy(&y, b + Tile::at(8 * i + 2 * t + q % 2, k + c), 4);
                d[i][q] += shim::element<1>(x & ~0x1fffu, 0) * shim::element<1>(y & ~0x1fffu, 0);
            }
}
