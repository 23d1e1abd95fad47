/* Runs libchdb.so as clickhouse-local: launcher LIBRARY ARGUMENTS.. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : NULL;
    void *(*run)(int, char **) = library ? (void *(*)(int, char **))dlsym(library, "chdb_query_cmdline") : NULL;
    const char *(*error)(void *) = library ? (const char *(*)(void *))dlsym(library, "chdb_result_error") : NULL;
    if (!run || !error) {
        fprintf(stderr, "launcher: %s\n", dlerror());
        return 2;
    }
    argv[1] = "clickhouse";
    void *result = run(argc - 1, argv + 1);
    const char *message = result ? error(result) : "no result";
    if (message) fprintf(stderr, "launcher: %s\n", message);
    return 1;
}
