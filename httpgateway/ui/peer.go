package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/build-swarm/swarm/build/view"
)

const (
	peerBuilds = 60
	peerEvents = 40
	peerDays   = 7
)

// peerView is all that is known of one peer.
type peerView struct {
	tile
	Built  []view.Job // by it, the newest first
	More   int
	Issues []view.Issue // that name it
	Orders []view.Order // in force about it
	Events []view.Event
	Now    int64
}

// peerURL is where the page of a peer is.
func peerURL(id string) string { return (&url.URL{Path: Prefix + "peer/" + id}).EscapedPath() }

// peerPage tells of one peer, by its ID or by its nickname if nobody else has it.
func (u *UI) peerPage(r *http.Request, d *view.Detail) (*page, error) {
	name := r.PathValue("peer")
	i := slices.IndexFunc(d.Peers, func(p view.Peer) bool { return p.ID == name })
	if i < 0 {
		i = slices.IndexFunc(d.Peers, func(p view.Peer) bool { return p.Nick == name })
	}
	if i < 0 {
		return nil, fmt.Errorf("no peer is called %s: %w", clip(name, 80), ErrNotFound)
	}
	p := d.Peers[i]
	v := peerView{tile: tileOf(p), Now: d.AtMS}
	for _, j := range d.Jobs {
		if j.PeerID == p.ID && j.EndedMS > 0 {
			v.Built = append(v.Built, j)
		}
	}
	slices.SortStableFunc(v.Built, func(a, b view.Job) int { return cmp.Compare(b.EndedMS, a.EndedMS) })
	if v.More = len(v.Built) - peerBuilds; v.More > 0 {
		v.Built = v.Built[:peerBuilds]
	}
	v.More = max(0, v.More)
	for _, is := range d.Issues {
		if slices.Contains(is.Drones, p.Nick) || is.ID == "peer/"+p.ID {
			v.Issues = append(v.Issues, is)
		}
	}
	for _, o := range d.Snapshot.Orders {
		if o.Scope == p.ID {
			v.Orders = append(v.Orders, o)
		}
	}
	list, err := u.cfg.Source.Events(r.Context(), d.AtMS-peerDays*24*3_600_000, 5000)
	if err != nil {
		return nil, fmt.Errorf("read what happened: %w", err)
	}
	for _, e := range slices.Backward(list) {
		if (e.Who == p.Nick || e.What == p.Nick) && len(v.Events) < peerEvents {
			v.Events = append(v.Events, e)
		}
	}
	t := d.Timeline
	t.Lanes = slices.DeleteFunc(slices.Clone(t.Lanes), func(l view.Lane) bool { return l.Peer != p.ID })
	return &page{Title: p.Nick, Here: "swarm", Live: true, Detail: d, Sections: []section{
		{"peer", v}, {"peerlane", lanesOf(&t, r.URL.Query().Get("span"), true)}, {"peerbuilds", v}, {"peerevents", v},
	}}, nil
}
