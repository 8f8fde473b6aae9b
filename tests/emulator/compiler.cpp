#include "emulator.h"

#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <set>
#include <string>
#include <unistd.h>

namespace emulator {
namespace {

constexpr int SUCCESS = 0, COMPILATION = 6;

struct Program {
    std::string source, name, image, ptx, log;
};

std::string read_all(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// A folder of its own, gone at the end.
struct Folder {
    std::string path;
    bool keep = false;

    Folder() {
        char name[] = "/tmp/emulated-XXXXXX";
        if (mkdtemp(name)) path = name;
    }
    ~Folder() {
        if (!keep && !path.empty()) (void)!system(("rm -r " + path).c_str());
    }
    std::string at(const char* name) const { return path + "/" + name; }
    void write(const char* name, const std::string& text) const { std::ofstream(at(name), std::ios::binary) << text; }
    bool run(const std::string& command) const { return system((command + " 2>>" + at("log")).c_str()) == 0; }
};

// The kernels of a source whose macros are expanded.
std::set<std::string> kernels_in(const std::string& expanded) {
    static const std::regex kernel("__global__\\s+void\\s+(?:__launch_bounds__\\s*\\([^()]*\\)\\s*)?(\\w+)\\s*\\(");
    std::set<std::string> names;
    for (std::sregex_iterator i(expanded.begin(), expanded.end(), kernel), end; i != end; ++i) names.insert((*i)[1]);
    return names;
}

// What PTX says of kernels: their names and the sizes of their parameters. There is no code in it.
std::string ptx_of(const std::string& object, const std::set<std::string>& names) {
    void* module = dlopen(object.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!module) return "";
    std::string text = "// of the emulator\n";
    for (auto& name : names) {
        size_t sizes[64];
        auto describe = (size_t (*)(size_t*))dlsym(module, ("emulated_sizes_" + name).c_str());
        const size_t count = describe ? describe(sizes) : 0;
        text += ".visible .entry " + name + "(";
        for (size_t i = 0; i < count; ++i) {
            text += (i ? ", " : "") + (".param .b8 " + name) + "_param_" + std::to_string(i) + "[" + std::to_string(sizes[i]) + "]";
        }
        text += ")\n{\n}\n";
    }
    dlclose(module);
    return text;
}

std::string options() {
    // What is optimised makes four loads of one of four numbers, where that is as good for a processor.
    return (looking() ? "-g1 -fsanitize=thread,alignment -DEMULATED_LOOK " : "") + std::string(setting("EMULATED_CXXFLAGS", counting() ? "-O0" : "-O1"));
}

bool build(Program& program) {
    Folder folder;
    if (folder.path.empty()) return false;
    const std::string compiler = setting("CXX", "c++");
    folder.write("source.cpp", program.source);
    bool good = folder.run(compiler + " -std=c++17 -E -P -w -x c++ -o " + folder.at("expanded") + " " + folder.at("source.cpp"));
    if (good) {
        static const std::regex dynamic("extern\\s+__shared__\\s+(?:__align__\\s*\\(\\w+\\)\\s+)?([\\w\\s]*\\w)\\s+(\\w+)\\s*\\[\\s*\\]");
        std::string text = "#include \"" EMULATOR_SOURCES "/kernel.h\"\n#line 1 \"" + program.name + "\"\n" +
                           std::regex_replace(program.source, dynamic, "$1* const $2 = ($1*)emulator::self().block->dynamic") + "\n";
        const auto names = kernels_in(read_all(folder.at("expanded")));
        for (auto& name : names) {
            text += "extern \"C\" void emulated_call_" + name + "(void** args) { emulator::call(&" + name + ", args); }\n";
            text += "extern \"C\" size_t emulated_sizes_" + name + "(size_t* to) { return emulator::sizes(&" + name + ", to); }\n";
        }
        folder.write("kernels.cpp", text);
        // In two steps, so that the compiler's own library for looking at accesses is left out.
        good = folder.run(compiler + " -std=c++17 -c -fPIC -w -fno-strict-aliasing " + options() + " -o " + folder.at("kernels.o") + " " +
                          folder.at("kernels.cpp")) &&
               folder.run(compiler + " -shared -Wl,-Bsymbolic -o " + folder.at("kernels.so") + " " + folder.at("kernels.o"));
        if (good) {
            program.image = read_all(folder.at("kernels.so"));
            program.ptx = ptx_of(folder.at("kernels.so"), names);
        }
    }
    program.log = read_all(folder.at("log"));
    folder.keep = !good && *setting("EMULATED_KEEP", "0") == '1';
    return good;
}

// One architecture is as good as another: a source is compiled once.
bool build_once(Program& program) {
    static std::mutex lock;
    static std::map<std::string, std::shared_ptr<Program>> built;
    {
        std::lock_guard<std::mutex> guard(lock);
        auto found = built.find(program.source);
        if (found != built.end()) return program = *found->second, true;
    }
    if (!build(program)) return false;
    std::lock_guard<std::mutex> guard(lock);
    built[program.source] = std::make_shared<Program>(program);
    return true;
}

// Part of the key under which the backend keeps images: what kernels include, and how they are compiled.
int version() {
    uint32_t hash = 2166136261u;
    for (const std::string& part : {read_all(EMULATOR_SOURCES "/kernel.h"), read_all(EMULATOR_SOURCES "/thread.h"),
                                    std::string(setting("CXX", "c++")), options()}) {
        for (unsigned char c : part) hash = (hash ^ c) * 16777619u;
    }
    return (int)(hash & 0x7fffffff);
}

}  // namespace
}  // namespace emulator

using namespace emulator;

API int nvrtcVersion(int* major, int* minor) {
    static const int number = version();
    return *major = 13, *minor = number, SUCCESS;
}
API int nvrtcGetNumSupportedArchs(int* count) { return *count = 2, SUCCESS; }
API int nvrtcGetSupportedArchs(int* all) { return all[0] = 80, all[1] = 90, SUCCESS; }
API int nvrtcCreateProgram(Program** program, const char* source, const char* name, int, const char* const*, const char* const*) {
    *program = new Program{source, name ? name : "kernels.cu", "", "", ""};
    return SUCCESS;
}
API int nvrtcCompileProgram(Program* program, int, const char* const*) { return build_once(*program) ? SUCCESS : COMPILATION; }
API int nvrtcDestroyProgram(Program** program) { return delete *program, *program = nullptr, SUCCESS; }
API int nvrtcGetCUBINSize(Program* program, size_t* size) { return *size = program->image.size(), SUCCESS; }
API int nvrtcGetCUBIN(Program* program, char* to) { return memcpy(to, program->image.data(), program->image.size()), SUCCESS; }
API int nvrtcGetPTXSize(Program* program, size_t* size) { return *size = program->ptx.size() + 1, SUCCESS; }
API int nvrtcGetPTX(Program* program, char* to) { return memcpy(to, program->ptx.c_str(), program->ptx.size() + 1), SUCCESS; }
API int nvrtcGetProgramLogSize(Program* program, size_t* size) { return *size = program->log.size() + 1, SUCCESS; }
API int nvrtcGetProgramLog(Program* program, char* to) { return memcpy(to, program->log.c_str(), program->log.size() + 1), SUCCESS; }
API const char* nvrtcGetErrorString(int error) {
    return error == SUCCESS ? "NVRTC_SUCCESS" : error == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "an error of the emulator";
}
