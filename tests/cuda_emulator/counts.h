// Launches and transfers, counted: the same on CUDA and on OpenCL.
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include <map>
#include <mutex>
#include <string>

struct Transfers {
    long number = 0, bytes = 0;
    void add(size_t n) { number++, bytes += (long)n; }
    std::string text() const {
        return "[" + std::to_string(number) + ", " + std::to_string(bytes) + "]";
    }
};

class Counts {
    std::mutex lock;
    std::map<std::string, long> launches;
    Transfers to_device, to_host;
    std::string shown;

public:
    void launch(const std::string& kernel) {
        std::lock_guard<std::mutex> guard(lock);
        launches[kernel]++;
    }
    void up(size_t bytes) {
        std::lock_guard<std::mutex> guard(lock);
        to_device.add(bytes);
    }
    void down(size_t bytes) {
        std::lock_guard<std::mutex> guard(lock);
        to_host.add(bytes);
    }
    // JSON; valid until the next call
    const char* text() {
        std::lock_guard<std::mutex> guard(lock);
        std::string all;
        for (auto& each : launches)
            all += (all.empty() ? "" : ", ") + ("\"" + each.first + "\": ") +
                   std::to_string(each.second);
        shown = "{\"launches\": {" + all + "}, \"to_device\": " + to_device.text() +
                ", \"to_host\": " + to_host.text() + "}";
        return shown.c_str();
    }
    // Append a line to the file that a variable names, for the end of a process.
    void write(const std::string& path) {
        FILE* file = path.empty() ? nullptr : fopen(path.c_str(), "a");
        if (!file) return;
        fprintf(file, "%s\n", text());
        fclose(file);
    }
};
