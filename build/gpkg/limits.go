package gpkg

// Limits of what a container may be. They are far above every package Gentoo
// has (the largest, a kernel's firmware or a browser's debug files, has 40,000
// members and 6 GiB unpacked) and low enough that a hostile container costs
// seconds and a few hundred MiB at most.
const (
	// maxContainerMembers is what a signed package has (7) and some air.
	maxContainerMembers = 16
	// maxManifest and maxSignature bound members read whole.
	maxManifest  = 256 << 10
	maxSignature = 256 << 10
	maxIdentity  = 4 << 10 // gpkg-1, empty in all that Portage writes
	// maxMetadata bounds the metadata, both packed and unpacked; Portage's own
	// remote reader refuses metadata that ends past 10,000,000 bytes.
	maxMetadata     = 10_000_000
	maxMetadataKeys = 1_000
	// maxImageMembers and maxImageNames bound what the check for repeated names
	// holds in memory.
	maxImageMembers = 1_000_000
	maxImageNames   = 128 << 20 // bytes of all names together
	maxName         = 4_096     // PATH_MAX
	// maxImage bounds the unpacked image; below it the image may be at most
	// maxRatio times its packed size, once it is larger than freeImage.
	maxImage  = 256 << 30
	maxRatio  = 1_000
	freeImage = 64 << 20
	// maxTail is how much zero padding may follow the end of a tar; Portage
	// pads to 10,240.
	maxTail = 64 << 10
	// maxWindow is the largest zstd window read. "zstd -22 --ultra" uses 128
	// MiB; only --long=28 and more goes beyond.
	maxWindow = 128 << 20
	// maxXZDict is the dictionary of "xz -9".
	maxXZDict = 64 << 20
)
