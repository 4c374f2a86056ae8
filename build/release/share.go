package release

import "slices"

// Share takes every entry that old has too from there. The two releases of a
// target that a peer holds at a time then take little more memory than one, and
// whoever compares them afterwards finds out at a glance. Neither may be in
// use by somebody else who writes; old is only read.
func (m *Manifest) Share(old *Manifest) {
	if old == nil {
		return
	}
	at := make(map[string]int, len(old.Entries))
	for i := range old.Entries {
		at[string(old.Entries[i].Key)] = i
	}
	for i := range m.Entries {
		if j, ok := at[string(m.Entries[i].Key)]; ok && m.Entries[i].equal(&old.Entries[j]) {
			m.Entries[i] = old.Entries[j]
		}
	}
}

func (e *Entry) equal(o *Entry) bool {
	return e.Key == o.Key && e.Slot == o.Slot && slices.Equal(e.Needs, o.Needs) && e.SameListing(o)
}

// SameListing reports whether an index lists two entries alike. Of entries that
// share memory it reads next to nothing.
func (e *Entry) SameListing(o *Entry) bool {
	a, b := &e.Artifact, &o.Artifact
	if a.CID != b.CID || e.CPV != o.CPV || e.Keywords != o.Keywords || a.Size != b.Size || a.MTime != b.MTime ||
		a.MD5 != b.MD5 || a.SHA1 != b.SHA1 || len(a.Meta) != len(b.Meta) {
		return false
	}
	return len(a.Meta) == 0 || &a.Meta[0] == &b.Meta[0] || slices.Equal(a.Meta, b.Meta)
}
