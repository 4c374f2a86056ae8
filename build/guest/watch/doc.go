// Package watch looks at the machine and carries out what build/guest decides:
// it owns the sensors, the loop that steps a guest.Guest, and the file that
// remembers a machine's days.
//
// # Sensors, each thin and each optional
//
//   - logind over D-Bus: who sits at the machine and whether they are idle (its own
//     word for Wayland, X and consoles), who inhibits idling, the lid, docking,
//     and suspend, which it announces; a delay lock gives time to freeze builds
//     and to tell the others before the machine sleeps.
//   - input devices, where they may be read: what somebody really touches, at
//     once. logind hears of it from the desktop only minutes later, and from some
//     desktops never.
//   - sysfs: batteries and mains, thermal zones and their trip points.
//   - kernel uevents (netlink): that a plug went in or out, at the moment.
//   - procfs: pressure, load, memory, and whether there is a lid.
//   - NetworkManager over D-Bus: whether the link is metered.
//
// Everything is read below Config.Root, so that tests have a machine of their own.
//
// # Invariants
//
//   - Input is an event: builds shrink in the step that it causes, not at the next
//     look at the clock.
//   - A sensor that fails is one that says nothing; what was lacking is in
//     Report.Lacks.
//   - An idle machine is looked at every 10 s, one that builds every 2 s, one that
//     is quiet every minute, and its input not at all; a machine whose policy is Always needs neither input nor logind and is woken
//     by neither.
//   - The first step has been made, and carried out, before Run tells of it.
package watch
