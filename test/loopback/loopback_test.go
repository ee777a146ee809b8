package loopback

import "testing"

func TestEveryAddressIsNew(t *testing.T) {
	book := NewBook()
	seen := map[string]bool{}
	for range 300 {
		address, err := book.Take()
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Fatalf("%s was given twice", address)
		}
		seen[address] = true
	}
}
