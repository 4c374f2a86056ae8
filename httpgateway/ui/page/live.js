// Keeps a page up to date and saves keystrokes. Without it every page works.
"use strict";
(() => {
  const $ = (s, from) => (from || document).querySelector(s), all = (s, from) => [...(from || document).querySelectorAll(s)];
  const say = (state, text) => { const p = $("#link"); p.className = "link " + state; if (p.textContent !== text) p.textContent = text; };

  // The token that swarm web put behind the address stays in this tab, under
  // this very origin; it is never sent but in the form of an order.
  const given = /^#token=([\w-]+)$/.exec(location.hash);
  if (given) { sessionStorage.setItem("token", given[1]); history.replaceState(null, "", location.pathname + location.search); }
  const fill = () => { const t = sessionStorage.getItem("token"), f = $("[data-token]"); if (t && f && !f.value) f.value = t; };
  fill();

  // put replaces a section and keeps what the reader had opened and where.
  const put = (id, html) => {
    const s = document.getElementById(id);
    if (!s) return;
    const open = new Map(all("details[id]", s).map(d => [d.id, d.open]));
    const at = document.activeElement, had = s.contains(at), href = had && at.getAttribute("href"), fid = had && at.id;
    s.innerHTML = html;
    for (const d of all("details[id]", s)) if (open.has(d.id)) d.open = open.get(d.id);
    if (had) ((fid && document.getElementById(fid)) || (href && all("a", s).find(a => a.getAttribute("href") === href)) || document.body).focus({ preventScroll: true });
  };

  // listen keeps a stream open: while the tab is seen, and over a restart of
  // the peer. url is asked again each time.
  const listen = (url, handlers) => {
    let es = null, timer = 0, over = false;
    const close = () => { clearTimeout(timer); if (es) es.close(); es = null; };
    const open = () => {
      close();
      if (document.hidden || over) return;
      es = new EventSource(url());
      es.addEventListener("hello", e => {
        if (document.body.dataset.live && e.data !== document.body.dataset.live) return location.reload();
        say("on", "live");
      });
      for (const [name, f] of Object.entries(handlers)) es.addEventListener(name, e => { if (f(e) === false) { over = true; close(); } });
      es.onerror = () => { say("off", "this peer does not answer; trying again"); close(); timer = setTimeout(open, 1500); };
    };
    document.addEventListener("visibilitychange", () => document.hidden ? close() : open());
    addEventListener("pagehide", close);
    addEventListener("pageshow", e => { if (e.persisted) open(); });
    open();
    return { again: open };
  };

  let live = null;
  const here = () => location.pathname + location.search;
  if (document.body.dataset.live) live = listen(here, { sections: e => { for (const [id, html] of Object.entries(JSON.parse(e.data))) if (!busy(id)) put(id, html); } });
  // A filter that somebody types in is not replaced under their hands.
  const busy = id => { const f = $("#" + id + " form"); return f && f.contains(document.activeElement); };

  // Filters act as one types: the page is loaded for the new query and its
  // sections are put in place. A form may have been put in place, too: events
  // are heard where they end up.
  let typed = 0, turn = 0;
  const go = async f => {
    const q = new URLSearchParams();
    for (const [k, v] of new FormData(f)) if (v) q.set(k, v);
    const url = f.getAttribute("action") + (q.size ? "?" + q : ""), mine = ++turn;
    try {
      const res = await fetch(url, { headers: { Accept: "text/html" } });
      const doc = new DOMParser().parseFromString(await res.text(), "text/html");
      if (mine !== turn) return;
      history.replaceState(null, "", url);
      for (const s of all("main > section", doc)) if (!$("#" + s.id)?.contains(f)) put(s.id, s.innerHTML);
      if (live) live.again();
    } catch { say("off", "this peer does not answer"); }
  };
  const filter = e => e.target.closest("form[data-auto]");
  document.addEventListener("input", e => { const f = filter(e); if (f) { clearTimeout(typed); typed = setTimeout(go, 180, f); } });
  document.addEventListener("submit", e => { const f = filter(e); if (f) { e.preventDefault(); clearTimeout(typed); go(f); } });

  // A log that is being written.
  const log = $("[data-follow]");
  if (log) {
    let from = +log.dataset.from, line = +log.dataset.line, pre = all("pre.lines", $("#phases")).pop();
    const kept = 5000, note = $("#follow");
    const begin = name => {
      const d = document.createElement("details"), s = document.createElement("summary");
      d.className = "phase"; d.open = true; s.textContent = name;
      pre = document.createElement("pre"); pre.className = "lines";
      for (const old of all("details.phase", $("#phases"))) if (!$(".err", old)) old.open = false;
      d.append(s, pre); $("#phases").append(d); $("#nolog")?.remove();
    };
    listen(() => location.pathname + "?from=" + from + "&line=" + line, {
      phase: e => begin(e.data),
      lines: e => {
        if (!pre) begin("begin");
        $("#nolog")?.remove();
        pre.insertAdjacentHTML("beforeend", e.data);
        from = +e.lastEventId; line = +(pre.lastElementChild?.dataset.n || line);
        while (pre.childElementCount > kept) pre.firstElementChild.remove();
        if ($("#stick").checked) scrollTo(0, document.body.scrollHeight);
      },
      end: () => { note.textContent = "the build has ended"; say("", ""); return false; },
    });
  }
  if (log && $("#stick").checked && !location.hash) scrollTo(0, document.body.scrollHeight);

  // Keys, where nobody types.
  document.addEventListener("keydown", e => {
    if (e.ctrlKey || e.metaKey || e.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName)) { if (e.key === "Escape") e.target.blur(); return; }
    const nav = all("nav a");
    if (e.key >= "1" && e.key <= String(nav.length)) nav[e.key - 1].click();
    else if (e.key === "/") { const q = $("#q"); if (q) { e.preventDefault(); q.focus(); q.select(); } else location.href = "/-/packages"; }
    else if (e.key === "e") { const f = $(".ln.err") || $("#first-error"); if (f) { f.closest("details")?.setAttribute("open", ""); f.scrollIntoView({ block: "center" }); } }
  });
})();
