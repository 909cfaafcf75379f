/* Answers UD0, put in place of CPUID, as a processor without AVX-512, VNNI, bf16 and AMX would. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#define BIT(n) (1u << (n))

static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)registers[REG_RIP];
    (void)info;
    if (at[0] != 0x0f || at[1] != 0xff) {
        signal(signal_number, SIG_DFL); /* a real fault */
        return;
    }
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == 7 && part == 0) {
        /* AVX512: F DQ IFMA PF ER CD BW VL; VBMI VBMI2 VNNI BITALG VPOPCNTDQ */
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        /* 4VNNIW 4FMAPS VP2INTERSECT; AMX BF16, AVX512 FP16, AMX TILE INT8 */
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    }
    if (leaf == 7 && part == 1) {
        /* AVX VNNI, AVX512 BF16, AMX FP16, AVX IFMA; AVX VNNI INT8, NE CONVERT, VNNI INT16, AVX10 */
        a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
        d &= ~(BIT(4) | BIT(5) | BIT(10) | BIT(19));
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER; /* not on an alternate stack: some are too small */
    *(void **)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    real_sigaction(SIGILL, &action, 0);
}

/* Nobody else gets the signal. */
int sigaction(int number, const struct sigaction *new_action, struct sigaction *old_action) {
    if (!real_sigaction)
        *(void **)&real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    return real_sigaction(number, number == SIGILL ? 0 : new_action, old_action);
}
