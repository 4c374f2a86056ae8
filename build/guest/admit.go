package guest

import "fmt"

// Need is what a build is expected to want, in MiB; 0 = unknown.
type Need struct{ MemoryMiB, DiskMiB int64 }

// Room is what a machine has for one more build.
type Room struct {
	FreeMemMiB  int64 // available now; 0 = unknown
	FreeDiskMiB int64 // in the work directory's file system
	Running     []Booked
}

// Booked is what a running build was admitted with and has taken by now.
type Booked struct{ Need, Used Need }

const (
	// DiskReserve is what builds leave of a disk, in MiB.
	DiskReserve = 1024
	// unknownDisk is what a build is taken to want that nobody has seen.
	unknownDisk = 512
)

// Left is the room without what the running builds have yet to take.
func (r Room) Left() Need {
	n := Need{r.FreeMemMiB, r.FreeDiskMiB - DiskReserve}
	for _, b := range r.Running {
		n.MemoryMiB -= max(0, b.Need.MemoryMiB-b.Used.MemoryMiB)
		n.DiskMiB -= max(0, max(b.Need.DiskMiB, unknownDisk)-b.Used.DiskMiB)
	}
	return Need{max(0, n.MemoryMiB), max(0, n.DiskMiB)}
}

// Disk is what builds here may take in all, those that run included, in MiB.
func (r Room) Disk() int64 {
	n := r.FreeDiskMiB - DiskReserve
	for _, b := range r.Running {
		n += b.Used.DiskMiB
	}
	return max(0, n)
}

// Admit says why a build does not fit now; "" when it does.
func Admit(n Need, r Room) string {
	left := r.Left()
	disk := max(n.DiskMiB, unknownDisk)
	switch {
	case n.MemoryMiB > 0 && r.FreeMemMiB > 0 && n.MemoryMiB > left.MemoryMiB:
		return fmt.Sprintf("it wants %d MiB of memory, and %d are left here", n.MemoryMiB, left.MemoryMiB)
	case disk > left.DiskMiB:
		return fmt.Sprintf("it wants %d MiB of disk, and %d are left here", disk, left.DiskMiB)
	}
	return ""
}
