package control

// Nearest is the word that was probably meant, for a hint; "" when none is near.
func Nearest(word string, words []string) string {
	best, dist := "", min(3, len(word))
	for _, w := range words {
		if d := distance(word, w); d < dist {
			best, dist = w, d
		}
	}
	return best
}

// distance is the edit distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
