# One image with three commands: velocity api, velocity operator, velocity migrate. Node 24, compiled JavaScript, no
# development packages, no embedded Postgres; runs as uid 65532 on a read-only root.
#
#     docker build -t registry.example/velocity:0.1.0 .
#
# test/kubernetes/Image.test.ts carries out these lines in a folder and runs what comes of it.
FROM node:24-bookworm-slim AS packages
WORKDIR /opt/velocity
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM node:24-bookworm-slim AS build
WORKDIR /opt/velocity
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/build.ts scripts/
COPY src src/
RUN npm run build

FROM node:24-bookworm-slim
WORKDIR /opt/velocity
ENV NODE_ENV=production
ENV PATH=/opt/velocity/bin:/usr/local/bin:/usr/bin:/bin
COPY --from=packages /opt/velocity/node_modules node_modules/
COPY --from=build /opt/velocity/dist dist/
COPY bin bin/
COPY migrations migrations/
COPY package.json LICENSE ./
RUN ln -s velocity.js bin/velocity
USER 65532:65532
ENTRYPOINT ["velocity"]
