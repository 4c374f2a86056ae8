package ui

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/build-swarm/swarm/build"
	"github.com/build-swarm/swarm/build/view"
)

// asking is the page that asks before an order is given.
type asking struct {
	Order
	OffWord string
	Name    string // of the scope, for people
	Says    string // what will happen
	Command string // the same at a terminal
	Typed   string // a word to type first, for what cannot be taken back
	Problem string
	Done    string
	Back    string
}

// verbs are the orders that a page can give: what each does, and the command.
var verbs = map[string]struct{ says, command, lift, liftCommand string }{
	"unblock": {"Its failures so far are forgotten, and a drone tries again.", "swarm unblock", "", ""},
	"bump":    {"It is built before everything that nobody waits for.", "swarm bump", "", ""},
	"pause":   {"It takes no new jobs until somebody resumes it.", "swarm pause", "It takes jobs again.", "swarm resume"},
	"drain":   {"It finishes what it builds and takes no more until somebody resumes it.", "swarm drain", "It takes jobs again.", "swarm resume"},
	"balance": {"Drones give back what they have not begun to compile, and it is shared out anew.", "swarm balance", "", ""},
	"reset":   {"Rounds, claims and failures of this target are forgotten. What is built stays.", "swarm reset", "", ""},
}

// ask reads an order from a query or a form.
func ask(q url.Values, d *view.Detail) (*asking, error) {
	a := &asking{Order: Order{Verb: q.Get("verb"), Scope: q.Get("scope"), Off: q.Get("off") != "", Reason: build.OneLine(q.Get("reason"), 200)}, Back: "/"}
	v, ok := verbs[a.Verb]
	if !ok || a.Scope == "" || len(a.Scope) > 128 || a.Off && v.lift == "" {
		return nil, &errPage{http.StatusBadRequest, "No such order", "the swarm's page has a link for each that it can give"}
	}
	a.Name = build.OneLine(a.Scope, 64)
	for i := range d.Jobs {
		if string(d.Jobs[i].Key) == a.Scope {
			a.Name, a.Back = d.Jobs[i].CPV, packageURL(d.Jobs[i].CPV)
		}
	}
	for i := range d.Peers {
		if d.Peers[i].ID == a.Scope {
			a.Name = d.Peers[i].Nick
		}
	}
	if a.Scope == "all" {
		a.Name = "everything"
	}
	a.Says, a.Command = v.says, v.command+" "+short(a.Scope)
	if a.Off {
		a.Says, a.Command, a.OffWord = v.lift, v.liftCommand+" "+short(a.Scope), "1"
	}
	if a.Verb == "balance" {
		a.Command = v.command
	}
	if a.Verb == "reset" {
		a.Command, a.Typed = v.command+" "+a.Scope, a.Scope
	}
	return a, nil
}

// Title of the page, and of its button.
func (a *asking) Title() string {
	if a.Off {
		return "Resume " + a.Name
	}
	return strings.ToUpper(a.Verb[:1]) + a.Verb[1:] + " " + a.Name
}

func (u *UI) confirm(r *http.Request, d *view.Detail) (*page, error) {
	a, err := ask(r.URL.Query(), d)
	if err != nil {
		return nil, err
	}
	return &page{Title: a.Title(), Detail: d, Sections: []section{{"order", a}}}, nil
}

// Orders takes the form of the page that asks. It wants, in this order: a
// request that a page of this very origin made, and the token.
func (u *UI) Orders(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	if why := crossSite(r); why != "" {
		u.fail(w, r, http.StatusForbidden, "Not from this page", why)
		return
	}
	if ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); ct != "application/x-www-form-urlencoded" {
		u.fail(w, r, http.StatusUnsupportedMediaType, "Not a form", "an order is what the page's form sends")
		return
	}
	if err := r.ParseForm(); err != nil {
		u.fail(w, r, http.StatusBadRequest, "Not a form", err.Error())
		return
	}
	d, err := u.cfg.Source.Latest(r.Context())
	if err != nil {
		u.problem(w, r, err)
		return
	}
	a, err := ask(r.PostForm, d)
	if err != nil {
		u.problem(w, r, err)
		return
	}
	code := 0
	switch {
	case !u.cfg.Source.Authorized(r.PostForm.Get("token")):
		code, a.Problem = http.StatusForbidden, "The token is missing, wrong, or too old. Run swarm web on this machine: it prints one."
	case a.Typed != "" && r.PostForm.Get("typed") != a.Typed:
		code, a.Problem = http.StatusBadRequest, fmt.Sprintf("Type %s to say that you mean it.", a.Typed)
	default:
		if a.Done, err = u.cfg.Source.Order(r.Context(), a.Order); err != nil {
			code, a.Problem = http.StatusConflict, build.OneLine(err.Error(), 300)
		}
	}
	u.send(w, r, &page{Title: a.Title(), Detail: d, Code: code, Sections: []section{{"order", a}}})
}

// crossSite says why a POST is not taken for one of this page, or nothing. A
// browser says where a form comes from, by Origin at the least; what says
// neither is no browser, and the token decides.
func crossSite(r *http.Request) string {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return "the browser says that another site made this request"
	}
	if o := r.Header.Get("Origin"); o != "" && o != "http://"+r.Host && o != "https://"+r.Host {
		return "the request comes from " + build.OneLine(o, 100)
	}
	return ""
}
