package emerge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/build-swarm/swarm/build"
)

const someLog = `1700000000: Started emerge on: Nov 14, 2023 22:13:20
1700000000:  *** emerge --update --deep @world
1700000001:  >>> emerge (1 of 4) sys-libs/zlib-1.3-r1 to /
1700000002:  >>> emerge (2 of 4) sys-devel/gcc-13.2.1_p20230826 to /
1700000002:  === (1 of 4) Compiling/Merging (sys-libs/zlib-1.3-r1::/var/db/repos/gentoo/sys-libs/zlib/zlib-1.3-r1.ebuild)
1700000021:  ::: completed emerge (1 of 4) sys-libs/zlib-1.3-r1 to /
1700000030:  >>> emerge (3 of 4) app-editors/vim-9.0 to /
1700000030:  === (3 of 4) Merging Binary (app-editors/vim-9.0::/var/cache/binpkgs/app-editors/vim-9.0.gpkg.tar)
1700000035:  ::: completed emerge (3 of 4) app-editors/vim-9.0 to /
1700003602:  ::: completed emerge (2 of 4) sys-devel/gcc-13.2.1_p20230826 to /
1700003610:  >>> emerge (4 of 4) dev-lang/rust-1.74.0 to /
1700003700:  *** terminating.
1700010000:  >>> emerge (1 of 1) sys-libs/zlib-1.3.1 to /
1700010031:  ::: completed emerge (1 of 1) sys-libs/zlib-1.3.1 to /
1700020000:  >>> emerge (1 of 1) sys-libs/zlib-1.3.1 to /
1700020025:  ::: completed emerge (1 of 1) sys-libs/zlib-1.3.1 to /
999999999999999999:  >>> emerge (1 of 1) a/b-1 to /
::: completed emerge (1 of 1) ../../etc-1 to /
`

func TestWhatTheMachineBuiltBeforeIsAGuess(t *testing.T) {
	past, err := readEmergeLog(strings.NewReader(someLog))
	if err != nil {
		t.Fatal(err)
	}
	if len(past) != 2 || past["sys-libs/zlib"] != 25 || past["sys-devel/gcc"] != 3600 {
		t.Errorf("%v", past)
	}
	plan := &build.Plan{Jobs: []build.Job{
		{CPV: build.CPV{Category: "sys-devel", Name: "gcc", Version: "14"}},
		{CPV: build.CPV{Category: "dev-lang", Name: "rust", Version: "1.75"}, CoreMillis: 7},
		{CPV: build.CPV{Category: "sys-libs", Name: "zlib", Version: "2"}, CoreMillis: 9},
	}}
	guessByPast(plan, past, 8)
	if plan.Jobs[0].CoreMillis != 8*3_600_000 || plan.Jobs[1].CoreMillis != 7 || plan.Jobs[2].CoreMillis != 8*25_000 {
		t.Errorf("%v", plan.Jobs)
	}
}

func TestAMachineWithoutALogHasNoGuess(t *testing.T) {
	dir := t.TempDir()
	p := &Portage{cfg: Config{EPrefix: dir}}
	if past, err := p.pastBuilds(); err != nil || len(past) != 0 {
		t.Errorf("%v, %v", past, err)
	}
	path := filepath.Join(dir, logPath)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(someLog), 0o600); err != nil {
		t.Fatal(err)
	}
	if past, err := p.pastBuilds(); err != nil || len(past) != 2 {
		t.Errorf("%v, %v", past, err)
	}
}
