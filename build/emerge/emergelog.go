package emerge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/build-swarm/swarm/build"
)

// What a machine compiled before the swarm was there stands in Portage's own
// log: a better guess of what the same packages cost on other machines than the
// size of their sources (guessWork). The board learns the rest.
const (
	logPath = "var/log/emerge.log" // unless EMERGE_LOG_DIR says otherwise, and then it is not found
	logMost = 32 << 20             // of it are read, from the end
	logLast = 3                    // builds of a package that count
)

// What is read of the log:
//
//	1700000000:  >>> emerge (1 of 3) sys-libs/zlib-1.3 to /
//	1700000019:  ::: completed emerge (1 of 3) sys-libs/zlib-1.3 to /
//	1700000030:  === (3 of 3) Merging Binary (app-editors/vim-9.0::/var/cache/...)
var (
	logBuild  = regexp.MustCompile(`^([0-9]{1,12}):  (>>>|::: completed) emerge \([0-9]+ of [0-9]+\) (\S+) to `)
	logBinary = regexp.MustCompile(`^[0-9]{1,12}:  === \([0-9]+ of [0-9]+\) Merging Binary \(([^ )]+?)::`)
)

// pastBuilds reads how long this machine took for packages (category/name), in
// seconds, from source. A machine without the log has none.
func (p *Portage) pastBuilds() (map[string]int64, error) {
	f, err := os.Open(filepath.Join("/", p.cfg.EPrefix, logPath))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil // it is for root alone on some machines
	}
	if err != nil {
		return nil, fmt.Errorf("read what was built before: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > logMost {
		if _, err := f.Seek(-logMost, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("read what was built before: %w", err)
		}
	}
	return readEmergeLog(f)
}

func readEmergeLog(r io.Reader) (map[string]int64, error) {
	began := map[string]int64{} // by package and version
	took := map[string][]int64{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if m := logBinary.FindStringSubmatch(sc.Text()); m != nil {
			delete(began, m[1]) // it was not compiled
			continue
		}
		m := logBuild.FindStringSubmatch(sc.Text())
		if m == nil {
			continue
		}
		at, err := strconv.ParseInt(m[1], 10, 64)
		if err != nil {
			continue
		}
		cpv := m[3]
		if m[2] == ">>>" {
			began[cpv] = at
			continue
		}
		c, err := build.ParseCPV(cpv)
		if from, ok := began[cpv]; ok && err == nil && at > from {
			took[c.CP()] = append(took[c.CP()], at-from)
		}
		delete(began, cpv)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read what was built before: %w", err)
	}
	out := make(map[string]int64, len(took))
	for cp, list := range took {
		list = list[max(0, len(list)-logLast):]
		slices.Sort(list)
		out[cp] = list[len(list)/2]
	}
	return out, nil
}

// guessByPast tells the jobs of a plan what they will cost, as far as this machine
// built the packages before: its cores were busy all the time, or nearly.
func guessByPast(plan *build.Plan, past map[string]int64, cores int) {
	for i := range plan.Jobs {
		j := &plan.Jobs[i]
		if s := past[j.CPV.CP()]; s > 0 {
			j.CoreMillis = s * 1000 * int64(max(1, cores))
		}
	}
}
