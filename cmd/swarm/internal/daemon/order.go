package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/gpkg"
	"github.com/build-swarm/swarm/build/view"
	"github.com/build-swarm/swarm/cas"
	"github.com/build-swarm/swarm/claims"
	"github.com/build-swarm/swarm/claims/wire"
	"github.com/build-swarm/swarm/cmd/swarm/internal/control"
)

// Why explains a job.
func (d *Daemon) Why(ctx context.Context, job string) (w view.Why, err error) {
	f, err := d.find(ctx, job)
	if err != nil {
		return w, err
	}
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		w, _ = view.Explain(r, f.key, now)
		return nil
	})
	if err == nil && len(w.Artifacts) == 2 {
		where, err := d.firstDifference(ctx, w.Artifacts[0], w.Artifacts[1])
		if err != nil {
			where = "cannot be told here: " + err.Error()
		}
		w.Differs += "; the first difference: " + build.OneLine(where, 300)
	}
	return w, err
}

// firstDifference compares two packages, which are fetched if they are not here.
func (d *Daemon) firstDifference(ctx context.Context, a, b string) (string, error) {
	one, closeOne, err := d.openPackage(ctx, a)
	if err != nil {
		return "", err
	}
	defer closeOne()
	two, closeTwo, err := d.openPackage(ctx, b)
	if err != nil {
		return "", err
	}
	defer closeTwo()
	return gpkg.FirstDifference(ctx, one, two)
}

func (d *Daemon) openPackage(ctx context.Context, name string) (*gpkg.Package, func(), error) {
	c, err := cas.Parse(name)
	if err != nil {
		return nil, nil, err
	}
	if err := d.Requester.Fetch(ctx, c); err != nil {
		return nil, nil, err
	}
	f, err := d.Store.Open(c)
	if err != nil {
		return nil, nil, err
	}
	p, err := gpkg.Open(f, f.Size())
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return p, func() { _ = f.Close() }, nil // only read
}

// WhyDrone explains what a drone does, or why it does nothing.
func (d *Daemon) WhyDrone(ctx context.Context, peer string) (w view.DroneWhy, err error) {
	var unknown error
	err = d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		id, err := peerNamed(r, peer, now)
		if err != nil {
			unknown = err
			return nil
		}
		w, _ = view.ExplainDrone(r, id, now)
		return nil
	})
	if err == nil {
		err = unknown
	}
	return w, err
}

// Order puts a directive on the board.
func (d *Daemon) Order(ctx context.Context, o control.Order) (control.OrderReply, error) {
	var reply control.OrderReply
	var refused error
	var key build.Key
	if claims.Verb(o.Verb) == claims.VerbUnblock && o.Scope != control.All || claims.Verb(o.Verb) == claims.VerbBump {
		if f, err := d.find(ctx, o.Scope); err == nil {
			key = f.key
		} else if claims.Verb(o.Verb) == claims.VerbUnblock {
			return reply, err
		}
	}
	var pin cid.Cid
	var called string
	if claims.Verb(o.Verb) == claims.VerbPin {
		var err error
		if pin, called, err = d.pinned(ctx, o.Scope); err != nil {
			return reply, err
		}
	}
	err := d.Agent.Do(ctx, func(r *claims.Replica, now claims.Now) []claims.Event {
		scope, named, err := pin.String(), called, error(nil)
		if !pin.Defined() {
			scope, named, err = scopeOf(r, o, key, now)
		}
		if err != nil {
			refused = err
			return nil
		}
		reply = control.OrderReply{Schema: 1, Verb: o.Verb, Scope: scope, Name: named, Off: o.Off}
		if claims.Verb(o.Verb) == claims.VerbBan && !o.Off {
			reply.Built = builtBy(r, scope)
		}
		if scope == control.All && claims.Verb(o.Verb) == claims.VerbAck {
			return ackAll(r)
		}
		return []claims.Event{claims.Post{Body: claims.Directive{Verb: claims.Verb(o.Verb), Scope: scope, Off: o.Off, Reason: build.OneLine(o.Reason, 200)}}}
	})
	if err == nil {
		err = refused
	}
	return reply, err
}

// scopeOf finds what a directive is about: the board's name of it, and the
// name for people.
func scopeOf(r *claims.Replica, o control.Order, key build.Key, now claims.Now) (scope, name string, err error) {
	switch claims.Verb(o.Verb) {
	case claims.VerbUnblock, claims.VerbBump:
		if claims.Verb(o.Verb) == claims.VerbUnblock && o.Scope == control.All {
			return control.All, "every job", nil
		}
		if key != "" {
			return string(key), r.Job(key).CPV.String(), nil
		}
		if _, _, ok := r.Round(o.Scope); ok {
			return o.Scope, "round " + o.Scope, nil
		}
		return "", "", &control.Error{Kind: control.KindNotFound, Message: fmt.Sprintf("no job and no round %q", build.OneLine(o.Scope, 80)), Hint: "swarm jobs and swarm status list them"}
	case claims.VerbPause, claims.VerbDrain:
		if o.Scope == control.All {
			return control.All, "every drone", nil
		}
		id, err := peerNamed(r, o.Scope, now)
		return id, r.Name(id), err
	case claims.VerbCancel:
		for _, rd := range r.Rounds() {
			if rd.ID == o.Scope {
				if rd.State != build.RoundOpen {
					return "", "", &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("round %s is %s already", rd.ID, rd.State), Hint: "swarm status lists the open rounds"}
				}
				return rd.ID, "round " + rd.ID, nil
			}
		}
		return "", "", &control.Error{Kind: control.KindNotFound, Message: fmt.Sprintf("no round %q", build.OneLine(o.Scope, 80)), Hint: "swarm status lists the rounds"}
	case claims.VerbAck:
		if o.Scope == control.All {
			return control.All, "every peer", nil
		}
		id, err := peerNamed(r, o.Scope, now)
		return id, r.Name(id), err
	case claims.VerbBan:
		id, err := peerNamed(r, o.Scope, now)
		if err == nil && id == r.Self() {
			err = &control.Error{Kind: control.KindUsage, Message: "this is the peer that you would ban", Hint: "swarm peers ban on another machine, or stop this one"}
		}
		return id, r.Name(id), err
	case claims.VerbReset:
		for _, rd := range r.Rounds() {
			if rd.Target == o.Scope {
				return o.Scope, "target " + o.Scope, nil
			}
		}
		return "", "", &control.Error{Kind: control.KindNotFound, Message: fmt.Sprintf("no round for a target %q", build.OneLine(o.Scope, 80)), Hint: "swarm status --json names the targets"}
	case claims.VerbBalance:
		return control.All, "every drone", nil
	}
	return "", "", &control.Error{Kind: control.KindUsage, Message: fmt.Sprintf("nothing is done by %q", build.OneLine(o.Verb, 40))}
}

// peerNamed finds a peer by its nickname, its ID, or the end of it.
func peerNamed(r *claims.Replica, name string, now claims.Now) (string, error) {
	var hits []string
	for _, p := range r.Peers(now) {
		if p.ID == name || r.Name(p.ID) == name || len(name) >= 6 && strings.HasSuffix(p.ID, name) {
			hits = append(hits, p.ID)
		}
	}
	for _, o := range r.Orders() { // of a banned peer there may be no other word
		if o.Verb == claims.VerbBan && !slices.Contains(hits, o.Scope) && (o.Scope == name || len(name) >= 6 && strings.HasSuffix(o.Scope, name)) {
			hits = append(hits, o.Scope)
		}
	}
	switch len(hits) {
	case 1:
		return hits[0], nil
	case 0:
		if _, err := wire.PublicKey(name); err == nil {
			return name, nil // one that this peer has not heard of
		}
		return "", &control.Error{Kind: control.KindNotFound, Message: "no peer " + build.OneLine(name, 80), Hint: "swarm peers lists them"}
	}
	return "", &control.Error{Kind: control.KindUsage, Message: build.OneLine(name, 80) + " names several peers", Hint: "give the end of the ID, from swarm peers"}
}
