package agent

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/errgroup"

	"github.com/build-swarm/swarm/claims/hlc"
	"github.com/build-swarm/swarm/claims/wire"
)

// ErrInUse is returned when another process has the journal open.
var ErrInUse = errors.New("another swarm daemon runs on this state directory")

// mapped is how much of the journal is mapped into memory from the start: whenever
// the file outgrows it, bbolt copies what it has in hand and maps anew. It is
// address space, not memory; a board of 60,000 records takes half of it.
const mapped = 128 << 20

var (
	recordsBucket = []byte("records")
	clockBucket   = []byte("clock")
	markKey       = []byte("mark")
)

// Journal keeps the board's records on disk, by key.
type Journal struct{ db *bbolt.DB }

// OpenJournal opens or makes the file. The file is locked; a second opener
// gets ErrInUse within a second.
func OpenJournal(path string) (*Journal, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType, InitialMmapSize: mapped})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open journal %s: %w", path, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(recordsBucket)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(clockBucket)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare journal %s: %w", path, err), db.Close())
	}
	return &Journal{db}, nil
}

// Load reads every record whose signature holds, counts the others, and reads
// the clock's mark; zero if there is none.
func (j *Journal) Load() (recs []wire.Opened, mark hlc.Time, bad int, err error) {
	var raws [][]byte
	err = j.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(clockBucket).Get(markKey); v != nil {
			if mark, err = hlc.Parse(string(v)); err != nil {
				bad++ // the stamps of the records are a mark, too
			}
		}
		return tx.Bucket(recordsBucket).ForEach(func(_, v []byte) error {
			raws = append(raws, append([]byte(nil), v...))
			return nil
		})
	})
	if err != nil {
		return nil, 0, 0, fmt.Errorf("read journal: %w", err)
	}
	// A disk forgets too, so what it gives back is checked like what a peer
	// sends; that is nearly all the time it takes to start.
	all := make([]wire.Opened, len(raws))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(raws); from += checkPart {
		g.Go(func() error {
			for i := from; i < min(from+checkPart, len(raws)); i++ {
				if o, err := wire.Open(raws[i]); err == nil {
					all[i] = o
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, 0, 0, err
	}
	for _, o := range all {
		if o.IsZero() {
			bad++
			continue
		}
		recs = append(recs, o)
	}
	return recs, mark, bad, nil
}

// Write drops keys and then puts records by theirs, and sets the clock's mark
// unless it is zero, in one transaction, on disk when it returns.
func (j *Journal) Write(put map[string]wire.Opened, drop []string, mark hlc.Time) error {
	err := j.db.Update(func(tx *bbolt.Tx) error {
		if mark > 0 {
			if err := tx.Bucket(clockBucket).Put(markKey, []byte(mark.String())); err != nil {
				return err
			}
		}
		b := tx.Bucket(recordsBucket)
		for _, k := range drop {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
		}
		// A page of the tree is split only when the transaction ends, so that each
		// key put before others moves them all: sorted, a joiner's journal takes a
		// third of the time.
		for _, k := range slices.Sorted(maps.Keys(put)) {
			if err := b.Put([]byte(k), put[k].Raw()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %d records to the journal: %w", len(put), err)
	}
	return nil
}

// Close releases the file.
func (j *Journal) Close() error { return j.db.Close() }
