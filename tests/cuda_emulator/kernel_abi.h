// What a compiled kernel and the driver share.
#pragma once

struct EmulatedPlace {
    unsigned x, y, z;
};

// One a library of kernels. The driver writes it whenever a thread goes on.
struct EmulatedThread {
    EmulatedPlace thread, block, block_size, grid_size;
    void (*barrier)(int place);  // place: which barrier of the source this is
    char* dynamic_shared;
};
