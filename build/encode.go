package build

import "github.com/fxamacker/cbor/v2"

// The modes are immutable and safe for concurrent use.
var encMode, decMode = modes()

func modes() (cbor.EncMode, cbor.DecMode) {
	eo := cbor.CoreDetEncOptions()
	eo.TextMarshaler = cbor.TextMarshalerTextString
	enc, err := eo.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:  16,
		MaxArrayElements: 1 << 17,
		MaxMapPairs:      1 << 12,
		IndefLength:      cbor.IndefLengthForbidden,
		TagsMd:           cbor.TagsForbidden,
		TextUnmarshaler:  cbor.TextUnmarshalerTextString,
	}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return enc, dec
}

// Marshal encodes a value of the vocabulary as core deterministic CBOR (RFC
// 8949, 4.2.1): equal values have equal bytes on every machine.
func Marshal(v any) ([]byte, error) { return encMode.Marshal(v) }

// Unmarshal decodes what a peer or a file holds, within fixed bounds. Fields
// it does not know are passed over, so that old and new versions can mix.
func Unmarshal(b []byte, v any) error { return decMode.Unmarshal(b, v) }
