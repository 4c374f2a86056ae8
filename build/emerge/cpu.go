package emerge

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// What -march=native means on this machine, and what a processor has to know
// for flags and CPU_FLAGS. The compiler is asked: it alone knows.

// compilerHelp is what "cc FLAGS -Q --help=target" says: options that are on or
// off, and those with a value.
type compilerHelp struct {
	on    map[string]bool
	value map[string]string
}

// readHelp reads GCC's listing.
func readHelp(text []byte) compilerHelp {
	h := compilerHelp{on: map[string]bool{}, value: map[string]string{}}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 2 || !strings.HasPrefix(words[0], "-m") {
			continue
		}
		name := strings.TrimPrefix(words[0], "-m")
		switch words[1] {
		case "[enabled]":
			h.on[name] = true
		case "[disabled]":
			h.on[name] = false
		default:
			if strings.HasSuffix(name, "=") {
				h.value[strings.TrimSuffix(name, "=")] = words[1]
			}
		}
	}
	return h
}

// askCompiler asks for the meaning of machine flags.
func askCompiler(ctx context.Context, cc []string, flags []string) (compilerHelp, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	ask := func(flags, how []string) (out, errors []byte, err error) {
		cmd := exec.CommandContext(ctx, cc[0], slices.Concat(cc[1:], flags, how)...)
		cmd.Env = []string{"PATH=" + systemPath, "LC_ALL=C", "HOME=/"}
		var text, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &capped{buf: &text, max: 4 << 20}, &capped{buf: &stderr, max: 256 << 10}
		cmd.WaitDelay = time.Second
		if err := cmd.Run(); err != nil {
			return nil, nil, fmt.Errorf("ask %s what %s means: %w: %s", cc[0], strings.Join(flags, " "), err, lastLine(stderr.String()))
		}
		return text.Bytes(), stderr.Bytes(), nil
	}
	about, _, err := ask(nil, []string{"--version"})
	if err != nil {
		return compilerHelp{}, err
	}
	if !bytes.Contains(about, []byte("clang version")) {
		out, _, err := ask(flags, []string{"-Q", "--help=target"})
		return readHelp(out), err
	}
	// clang has no such list: which processor it takes for itself stands in the
	// command that it would run, and what that knows in what it predefines.
	macros, _, err := ask(flags, []string{"-dM", "-E", "-x", "c", "/dev/null"})
	if err != nil {
		return compilerHelp{}, err
	}
	_, command, err := ask(flags, []string{"-###", "-c", "-x", "c", "/dev/null", "-o", "/dev/null"})
	return readClang(macros, command), err
}

// readClang reads what clang predefines, and the command that it would run.
func readClang(macros, command []byte) compilerHelp {
	defined := map[string]bool{}
	for line := range strings.Lines(string(macros)) {
		if words := strings.Fields(line); len(words) >= 2 && words[0] == "#define" {
			defined[words[1]] = true
		}
	}
	h := compilerHelp{on: map[string]bool{}, value: map[string]string{}}
	for name := range instructions {
		switch name {
		case "abm", "3dnow": // clang knows them by no name, or no more
		case "cx16":
			h.on[name] = defined["__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16"]
		case "sahf":
			h.on[name] = defined["__LAHF_SAHF__"]
		default:
			h.on[name] = defined["__"+strings.ToUpper(strings.ReplaceAll(name, ".", "_"))+"__"]
		}
	}
	words := strings.Fields(string(command))
	for i, w := range words[:max(0, len(words)-1)] {
		name := map[string][]string{`"-target-cpu"`: {"arch", "cpu"}, `"-tune-cpu"`: {"tune"}}[w]
		for _, n := range name {
			h.value[n] = strings.Trim(words[i+1], `"`)
		}
	}
	return h
}

// instructions are the options of GCC and clang that let them use instructions which not
// every processor of the architecture has, by the kernel's name of them. What
// only intrinsics or a kernel use is not among them.
var instructions = map[string]string{
	"mmx": "mmx", "sse": "sse", "sse2": "sse2", "sse3": "pni", "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "sse4a": "sse4a",
	"avx": "avx", "avx2": "avx2", "avxvnni": "avx_vnni", "fma": "fma", "fma4": "fma4", "xop": "xop", "f16c": "f16c", "tbm": "tbm",
	"bmi": "bmi1", "bmi2": "bmi2", "lzcnt": "abm", "abm": "abm", "popcnt": "popcnt", "movbe": "movbe", "adx": "adx",
	"aes": "aes", "vaes": "vaes", "pclmul": "pclmulqdq", "vpclmulqdq": "vpclmulqdq", "sha": "sha_ni", "gfni": "gfni",
	"rdrnd": "rdrand", "rdseed": "rdseed", "cx16": "cx16", "sahf": "lahf_lm", "prfchw": "3dnowprefetch", "3dnow": "3dnow",
	"avx512f": "avx512f", "avx512cd": "avx512cd", "avx512bw": "avx512bw", "avx512dq": "avx512dq", "avx512vl": "avx512vl",
	"avx512ifma": "avx512ifma", "avx512vbmi": "avx512vbmi", "avx512vbmi2": "avx512_vbmi2", "avx512vnni": "avx512_vnni",
	"avx512bitalg": "avx512_bitalg", "avx512vpopcntdq": "avx512_vpopcntdq", "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16",
}

// cpuFlag is the kernel's name of a flag of CPU_FLAGS_X86 or CPU_FLAGS_ARM; ""
// for one that tells nothing of a processor.
func cpuFlag(family, flag string) string {
	switch family {
	case "x86":
		if k, ok := map[string]string{
			"sse3": "pni", "fma3": "fma", "pclmul": "pclmulqdq", "sha": "sha_ni", "mmxext": "sse", "padlock": "",
		}[flag]; ok {
			return k
		}
		return flag
	case "arm":
		if k, ok := map[string]string{
			"neon": "asimd", "edsp": "", "thumb": "", "thumb2": "", "iwmmxt": "", "iwmmxt2": "", "vfp": "fp", "vfpv3": "", "vfpv4": "",
			"vfp-d32": "", "crc32": "crc32",
		}[flag]; ok {
			return k
		}
		if len(flag) <= 2 && strings.HasPrefix(flag, "v") { // v8: an architecture
			return ""
		}
		return flag
	}
	return ""
}

// nativeFlags are the flags that only mean something on the machine that they
// are used on.
var nativeFlags = []string{"-march=native", "-mcpu=native", "-mtune=native"}

func hasNative(flags string) bool {
	return slices.ContainsFunc(strings.Fields(flags), func(f string) bool { return slices.Contains(nativeFlags, f) })
}

// resolveNative writes out in words what native means here: -march and -mtune
// by name, and every option that this processor has beyond the named one, or
// lacks. Cache sizes are left out: they tune, and would tie the target to one
// machine.
func resolveNative(ctx context.Context, cc []string, flags string) (string, error) {
	var native, rest []string
	for _, f := range strings.Fields(flags) {
		if slices.Contains(nativeFlags, f) {
			native = append(native, f)
			continue
		}
		rest = append(rest, f)
	}
	here, err := askCompiler(ctx, cc, native)
	if err != nil {
		return "", err
	}
	var out []string
	for _, f := range native {
		name := strings.TrimPrefix(strings.TrimSuffix(f, "=native"), "-m")
		v := here.value[name]
		if v == "" || v == "native" {
			return "", fmt.Errorf("resolve %s: %s does not say what it means here", f, cc[0])
		}
		out = append(out, "-m"+name+"="+v)
	}
	if slices.Contains(native, "-march=native") {
		if v := here.value["tune"]; v != "" && v != "native" && v != "generic" && v != here.value["arch"] && !slices.Contains(native, "-mtune=native") {
			out = append(out, "-mtune="+v)
		}
	}
	named, err := askCompiler(ctx, cc, out)
	if err != nil {
		return "", err
	}
	var extra []string
	for name := range instructions {
		on, known := here.on[name]
		switch {
		case !known || on == named.on[name]:
		case on:
			extra = append(extra, "-m"+name)
		default:
			extra = append(extra, "-mno-"+name)
		}
	}
	slices.Sort(extra)
	return strings.Join(slices.Concat(out, extra, rest), " "), nil
}

// needsOf lists what a processor must know to run what these flags make, as
// the kernel names it. It is empty where the compiler cannot say.
func needsOf(ctx context.Context, cc []string, flags string) ([]string, error) {
	var machine []string
	for _, f := range strings.Fields(flags) {
		if strings.HasPrefix(f, "-m") {
			machine = append(machine, f)
		}
	}
	if len(machine) == 0 {
		return nil, nil
	}
	h, err := askCompiler(ctx, cc, machine)
	if err != nil {
		return nil, err
	}
	var out []string
	for name, kernel := range instructions {
		if h.on[name] {
			out = append(out, kernel)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
