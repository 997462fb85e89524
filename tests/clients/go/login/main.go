// Proves to a server who it is, in one way, and sends itself a message: login WAY URL, in the directory of the keys.
package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
)

const wait = 20 * time.Second

func options(way string) ([]nats.Option, error) {
	switch way {
	case "token":
		return []nats.Option{nats.Token("s3cret")}, nil
	case "password":
		return []nats.Option{nats.UserInfo("plain", "secret")}, nil
	case "hashed":
		return []nats.Option{nats.UserInfo("hashed", "secret")}, nil
	case "wrong":
		return []nats.Option{nats.UserInfo("hashed", "secre")}, nil
	case "nkey":
		option, err := nats.NkeyOptionFromSeed("user.nk")
		return []nats.Option{option}, err
	case "tls":
		return []nats.Option{nats.RootCAs("ca.pem")}, nil
	case "certificate":
		return []nats.Option{nats.RootCAs("ca.pem"), nats.ClientCert("client.pem", "client-key.pem")}, nil
	}
	return nil, errors.New("no such way")
}

func login(way, url string) error {
	chosen, err := options(way)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(url, append(chosen, nats.NoReconnect(), nats.Timeout(wait))...)
	if way == "wrong" {
		if !errors.Is(err, nats.ErrAuthorization) {
			return fmt.Errorf("a wrong password: %v", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("joe.hello")
	if err != nil {
		return err
	}
	if err := nc.Publish("joe.hello", []byte("hello")); err != nil {
		return err
	}
	message, err := sub.NextMsg(wait)
	if err == nil && string(message.Data) != "hello" {
		err = fmt.Errorf("got %q", message.Data)
	}
	return err
}

func main() {
	way := os.Args[1]
	if err := login(way, os.Args[2]); err != nil {
		fmt.Printf("FAIL %s %v\n", way, err)
		os.Exit(1)
	}
	fmt.Printf("ok %s\n", way)
}
