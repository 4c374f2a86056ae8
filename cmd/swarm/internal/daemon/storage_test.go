package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/cas/disk"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

func TestACheckTellsOfWhatIsDamagedAndOfWhatIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	texts := map[cid.Cid]string{}
	file := map[string]string{} // where a blob lies, by its text
	for _, text := range []string{"sound", "damaged", "gone", "gone for ever"} {
		info, err := store.Put(t.Context(), strings.NewReader(text), cid.Undef)
		if err != nil {
			t.Fatal(err)
		}
		texts[info.CID] = text
		found, err := filepath.Glob(filepath.Join(dir, "blobs/*", info.CID.String()))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v %v", found, err)
		}
		file[text] = found[0]
	}
	if err := errors.Join(os.Chmod(file["damaged"], 0o600), os.WriteFile(file["damaged"], []byte("damagee"), 0o600), os.Remove(file["gone"]), os.Remove(file["gone for ever"])); err != nil {
		t.Fatal(err)
	}
	mend := func(ctx context.Context, c cid.Cid) error {
		if texts[c] == "gone for ever" {
			return errors.New("no peer has it")
		}
		_, err := store.Put(ctx, strings.NewReader(texts[c]), c)
		return err
	}
	check := func() (mended, lost string, checked int) {
		t.Helper()
		err := Fsck(t.Context(), store, func(c cid.Cid) string { return texts[c] }, mend, func(s control.FsckStep) error {
			mended, lost, checked = damages(s.Mended), damages(s.Lost), s.Checked
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return mended, lost, checked
	}
	if mended, lost, n := check(); mended != "damaged, gone" || lost != "gone for ever" || n != 4 {
		t.Errorf("of %d, mended %q, lost %q", n, mended, lost)
	}
	if mended, lost, n := check(); mended != "" || lost != "" || n != 3 {
		t.Errorf("again: of %d, mended %q, lost %q", n, mended, lost)
	}
}

func damages(list []control.Damage) string {
	var out []string
	for _, d := range list {
		out = append(out, d.Name)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}
