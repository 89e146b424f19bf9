// Generates Go code for Tollgate's contract. It needs neither protoc nor buf: it reads the .proto files itself and hands them to
// the plugins, which go.mod pins as tools.
package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// The files of the contract that a gateway needs, and where their imports are in Go.
var (
	files   = []string{"tollgate/v1/policy_service.proto", "tollgate/v1/types.proto"}
	plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}
	options = "paths=source_relative,Mgoogle/type/money.proto=google.golang.org/genproto/googleapis/type/money" +
		",Mtollgate/v1/policy_service.proto=example.com/tollgate-gateway/tollgate/v1;tollgatev1" +
		",Mtollgate/v1/types.proto=example.com/tollgate-gateway/tollgate/v1;tollgatev1"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: generate PROTO_DIRECTORY OUTPUT_DIRECTORY")
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{os.Args[1]}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), files...)
	if err != nil {
		log.Fatal(err)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: files, Parameter: proto.String(options)}
	seen := map[string]bool{}
	for _, file := range compiled {
		request.ProtoFile = withImports(request.ProtoFile, seen, file)
	}
	for _, plugin := range plugins {
		if err := run(plugin, request, os.Args[2]); err != nil {
			log.Fatalf("%s: %v", plugin, err)
		}
	}
}

// Each file stands behind what it imports.
func withImports(all []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return all
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		all = withImports(all, seen, file.Imports().Get(i).FileDescriptor)
	}
	return append(all, protoutil.ProtoFromFileDescriptor(file))
}

func run(plugin string, request *pluginpb.CodeGeneratorRequest, into string) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.Command("go", "tool", plugin)
	command.Stdin, command.Stderr = bytes.NewReader(input), os.Stderr
	output, err := command.Output()
	if err != nil {
		return err
	}
	response := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(output, response); err != nil {
		return err
	}
	if response.Error != nil {
		log.Fatalf("%s: %s", plugin, response.GetError())
	}
	for _, file := range response.File {
		path := filepath.Join(into, file.GetName())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(file.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
