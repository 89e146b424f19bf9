// A client of gRPC server reflection v1: the descriptors of one service with everything they import, as a
// FileDescriptorSet. The few messages it needs are written here, so that no .proto file is.

import grpc from '@grpc/grpc-js';
import protobuf from 'protobufjs';

const messages = protobuf.Root.fromJSON({
  nested: {
    Request: {
      fields: {
        fileByFilename: { type: 'string', id: 3 },
        fileContainingSymbol: { type: 'string', id: 4 },
        listServices: { type: 'string', id: 7 },
      },
    },
    Response: {
      fields: {
        files: { type: 'Files', id: 4 },
        services: { type: 'Services', id: 6 },
        error: { type: 'Failure', id: 7 },
      },
    },
    Files: { fields: { file: { rule: 'repeated', type: 'bytes', id: 1 } } },
    Services: { fields: { service: { rule: 'repeated', type: 'Service', id: 1 } } },
    Service: { fields: { name: { type: 'string', id: 1 } } },
    Failure: { fields: { code: { type: 'int32', id: 1 }, message: { type: 'string', id: 2 } } },
    // The two fields of google.protobuf.FileDescriptorProto that say which file it is and what it imports.
    File: {
      fields: {
        name: { type: 'string', id: 1 },
        dependency: { rule: 'repeated', type: 'string', id: 3 },
      },
    },
    FileSet: { fields: { file: { rule: 'repeated', type: 'bytes', id: 1 } } },
  },
});
const [Request, Response, File, FileSet] = ['Request', 'Response', 'File', 'FileSet'].map((n) => messages.lookupType(n));

const Reflection = grpc.makeGenericClientConstructor({
  ask: {
    path: '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
    requestStream: true,
    responseStream: true,
    requestSerialize: (request) => Buffer.from(Request.encode(Request.create(request)).finish()),
    responseDeserialize: (bytes) => Response.decode(bytes),
  },
});

/** The names of the services, and the encoded FileDescriptorSet of `service`. */
export async function describe(address, service, timeoutMs) {
  const client = new Reflection(address, grpc.credentials.createInsecure());
  const ask = (request) =>
    new Promise((resolve, reject) => {
      const stream = client.ask({ deadline: Date.now() + timeoutMs });
      stream.on('data', (answer) => (answer.error ? reject(new Error(answer.error.message)) : resolve(answer)));
      stream.on('error', reject);
      stream.end(request);
    });
  try {
    const listed = await ask({ listServices: '*' });
    const services = listed.services.service.map((entry) => entry.name);
    const files = new Map();
    const wanted = [{ fileContainingSymbol: service }];
    while (wanted.length > 0) {
      const answer = await ask(wanted.shift());
      for (const bytes of answer.files.file) {
        const { name, dependency } = File.decode(bytes);
        if (files.has(name)) continue;
        files.set(name, bytes);
        wanted.push(...dependency.filter((file) => !files.has(file)).map((file) => ({ fileByFilename: file })));
      }
    }
    const set = FileSet.create({ file: [...files.values()] });
    return { services, descriptors: Buffer.from(FileSet.encode(set).finish()) };
  } finally {
    client.close();
  }
}
