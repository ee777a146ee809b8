package trust

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// What a password's hash costs: Argon2id with 19 MiB, two passes and one thread.
const (
	passwordMemory  = 19 << 10 // KiB
	passwordTime    = 2
	passwordThreads = 1
	passwordSalt    = 16 // bytes
	passwordKey     = 32 // bytes
)

var passwordPrefix = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, passwordMemory, passwordTime, passwordThreads)

// HashPassword returns a salted hash from which the password is not found in reasonable time. It
// takes some tens of milliseconds and 19 MiB: bound how many are made at once.
func HashPassword(password string) string {
	salt := make([]byte, passwordSalt)
	rand.Read(salt) // never fails: see crypto/rand
	return passwordPrefix + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(passwordHash(password, salt))
}

func passwordHash(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, passwordTime, passwordMemory, passwordThreads, passwordKey)
}

// CheckPassword tells whether hash, which HashPassword made, is that of the password. It costs what
// HashPassword costs.
func CheckPassword(hash, password string) (bool, error) {
	rest, ok := strings.CutPrefix(hash, passwordPrefix)
	saltText, keyText, ok2 := strings.Cut(rest, "$")
	if !ok || !ok2 {
		return false, errors.New("the stored hash of the password has an unknown form; set the password anew")
	}
	salt, err := base64.RawStdEncoding.DecodeString(saltText)
	key, err2 := base64.RawStdEncoding.DecodeString(keyText)
	if err := errors.Join(err, err2); err != nil {
		return false, fmt.Errorf("the stored hash of the password: %w", err)
	}
	return subtle.ConstantTimeCompare(key, passwordHash(password, salt)) == 1, nil
}
