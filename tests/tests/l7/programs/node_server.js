// A node: node.js as it answers by itself, with a body of a known length, or in pieces.
const http = require("http");

const server = http.createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    if (request.url.startsWith("/pieces")) {
      for (let piece = 0; piece < 20; piece++) response.write("piece ".repeat(100));
      response.end("the last one");
    } else {
      response.setHeader("Content-Length", 1024);
      response.end("x".repeat(1024));
    }
  });
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), "0.0.0.0");
