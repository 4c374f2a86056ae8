// Package emerge drives Portage.
package emerge
